"""Which series of a study is read, and why the others are not."""
