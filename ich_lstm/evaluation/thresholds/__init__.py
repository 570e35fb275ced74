"""Operating points and recalibration, chosen on validation patients."""
