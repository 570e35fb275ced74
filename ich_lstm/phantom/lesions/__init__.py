"""Hemorrhages, injuries, and what looks like them."""
