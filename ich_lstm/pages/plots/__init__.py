"""Figures of matplotlib, for notebooks and reports."""
