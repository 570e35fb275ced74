"""Labelled scans are checked before they are trained on."""
