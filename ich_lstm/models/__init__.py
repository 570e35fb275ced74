"""The network, as plain torch modules."""
