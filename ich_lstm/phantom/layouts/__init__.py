"""The layouts of known data sets in which synthetic heads are written."""
