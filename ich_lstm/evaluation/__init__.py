"""Evaluation of predictions: figures, comparisons, thresholds and the report."""
