"""The metadata of stored models."""
