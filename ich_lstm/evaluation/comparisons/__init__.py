"""Comparisons of models, readers and strata."""
