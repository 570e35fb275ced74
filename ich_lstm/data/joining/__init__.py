"""Labels joined to the scans that they are about."""
