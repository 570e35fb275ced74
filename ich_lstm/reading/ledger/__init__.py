"""Headers as a table, and the table that accounts for every file."""
