"""Checkpoints of a running fit: written whole, and complete enough to go on as if nothing had happened."""
