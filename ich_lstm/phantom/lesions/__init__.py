"""Hemorrhages, injuries, and mimics of hemorrhage."""
