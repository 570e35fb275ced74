"""Export of predictions to standard formats (DICOM)."""
