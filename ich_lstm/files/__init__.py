"""Atomic writing of files, locks of folders, and detection of full disks."""
