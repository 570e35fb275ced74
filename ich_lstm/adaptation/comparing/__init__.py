"""What is tried on a site, how it is judged, and which of it is taken."""
