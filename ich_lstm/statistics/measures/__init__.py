"""Performance measures: scores, curves, calibration, and all figures with their intervals."""
