"""Patients into training, validation and test."""
