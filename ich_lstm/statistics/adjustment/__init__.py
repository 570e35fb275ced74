"""Probabilities made to fit: recalibration, and another prevalence."""
