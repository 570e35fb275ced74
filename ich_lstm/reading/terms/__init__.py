"""What the texts of a header say, in many languages and character sets."""
