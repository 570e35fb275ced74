"""One reader for each kind of label table."""
