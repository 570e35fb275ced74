"""What a training tells while it runs: lines, loggers, and what is planned."""
