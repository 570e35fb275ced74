"""A trained model on disk, and from a scan to its probabilities."""
