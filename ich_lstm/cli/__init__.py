"""The commands. Each module imports at its top only what its ``--help`` needs."""
