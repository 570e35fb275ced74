"""Files that are written whole or not at all, folders that one command at a time writes to, and full disks."""
