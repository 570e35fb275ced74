"""A head without hemorrhage: skull, brain, vessels, and their tissues."""
