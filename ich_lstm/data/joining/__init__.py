"""Joining labels to the scans that they describe."""
