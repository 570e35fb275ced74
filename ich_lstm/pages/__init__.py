"""HTML pages and pictures made from arrays; this room reads no files and needs no model."""
