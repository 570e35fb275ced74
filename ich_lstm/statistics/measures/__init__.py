"""What probabilities are worth against known labels: scores, curves, calibration, and all figures with their intervals."""
