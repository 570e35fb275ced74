"""Recognition of head scans by the skull and what it encloses."""
