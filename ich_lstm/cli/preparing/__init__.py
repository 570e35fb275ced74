"""The parts of ich-prepare that other commands use too."""
