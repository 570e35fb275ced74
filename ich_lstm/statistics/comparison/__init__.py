"""Comparison of models and readers: paired differences, significance tests and agreement."""
