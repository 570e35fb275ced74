"""The HTML pages of a training and of an evaluation."""
