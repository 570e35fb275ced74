"""Conversion of stored pixels to Hounsfield units."""
