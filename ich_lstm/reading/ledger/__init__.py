"""The table of headers, and the ledger that accounts for every file."""
