"""Predictions of many studies: what is read, written, explained and exported."""
