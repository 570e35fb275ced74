"""A head without hemorrhage: skull, brain, vessels, and what they are made of."""
