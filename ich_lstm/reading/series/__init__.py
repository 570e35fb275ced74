"""The slices of one series to an ordered, checked Scan."""
