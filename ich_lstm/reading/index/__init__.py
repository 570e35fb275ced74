"""A tree of any size to a table of headers and a ledger; it resumes after a kill."""
