"""Interpretation of the texts in a header, in many languages and character sets."""
