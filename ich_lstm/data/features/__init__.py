"""Features that a frozen encoder has computed once, stored on disk for every further epoch."""
