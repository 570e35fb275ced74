"""Weights that others released."""
