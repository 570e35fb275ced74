"""Fits of small models, made once."""

from fits import data, fit, resumed, trained

__all__ = ["data", "fit", "resumed", "trained"]
