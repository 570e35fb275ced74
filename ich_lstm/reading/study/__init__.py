"""Choice of the series of a study that is read, with the reason against each other one."""
