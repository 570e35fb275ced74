"""Loading labelled scans as packed batches."""
