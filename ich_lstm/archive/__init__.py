"""Prediction of many studies: running the model, accounting for every file, explanation, and export."""
