"""What a trained model is for: held-out figures, and predictions of studies."""
