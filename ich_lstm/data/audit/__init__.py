"""Audit of labelled scans before training."""
