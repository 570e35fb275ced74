"""Adjustment of probabilities: recalibration, and correction for a different prevalence."""
