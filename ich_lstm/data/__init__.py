"""Labelled scans, split by patient, cached, and packed into batches."""
