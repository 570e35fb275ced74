"""Tensors in the files of others: what they claim to hold, and their values."""
