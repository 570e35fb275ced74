"""Synthetic heads in the layout of a known data set."""
