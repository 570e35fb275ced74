"""Sequence heads, which look along the slices of a scan."""
