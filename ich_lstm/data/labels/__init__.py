"""Readers of label tables, one for each kind of table."""
