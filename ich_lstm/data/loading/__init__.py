"""Labelled scans as packed batches."""
