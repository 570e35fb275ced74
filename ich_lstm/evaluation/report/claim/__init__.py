"""The CLAIM 2024 checklist."""
