"""What is computed from an encoder's features before the first step of a fit: stored features, and a reduction of them."""
