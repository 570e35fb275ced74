"""From the slices of one series to an ordered, checked Scan."""
