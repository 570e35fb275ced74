"""The parts of ich-train."""
