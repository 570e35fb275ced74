"""Indexing of a tree of any size into a table of headers and a ledger; it resumes after a kill."""
