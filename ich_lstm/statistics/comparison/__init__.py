"""Tests of the difference between two models or two readers."""
