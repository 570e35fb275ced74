"""What looks along the slices of a scan."""
