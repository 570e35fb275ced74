"""The parts of ich-evaluate."""
