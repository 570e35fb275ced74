"""Adapts a model to the scans of a site: candidates compared by cross-validation over patients, on features stored once."""
