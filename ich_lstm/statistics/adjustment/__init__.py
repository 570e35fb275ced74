"""Adjustment of probabilities: recalibration, and correction for another prevalence."""
