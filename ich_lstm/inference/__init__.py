"""Loading a trained model from disk, and predicting scans with it."""
