"""Sources of files, and the container around a DICOM data set."""
