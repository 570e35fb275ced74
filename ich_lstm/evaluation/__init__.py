"""What predictions are worth: figures, comparisons, thresholds and the report."""
