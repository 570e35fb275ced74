"""Matplotlib figures for notebooks and reports."""
