"""Performance measures: log losses, curves, calibration, and all figures with their intervals."""
