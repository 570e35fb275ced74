"""Choice of operating points and recalibration on the validation set."""
