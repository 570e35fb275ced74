"""Weights published by others."""
