"""From arrays to pages and pictures; no files are read here, and no model is needed."""
