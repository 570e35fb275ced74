"""Splitting patients into training, validation and test."""
