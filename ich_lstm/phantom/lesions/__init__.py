"""Hemorrhages, injuries, and lesions that look like hemorrhage."""
