"""Export of predictions to formats of other systems."""
