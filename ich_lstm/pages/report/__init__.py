"""The pages of a training and of an evaluation."""
