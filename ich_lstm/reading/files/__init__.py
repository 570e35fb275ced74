"""Where files come from, and what lies around a DICOM data set in one."""
