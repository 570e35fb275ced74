"""The decoded DICOM header: values, frames, geometry, and the patient's identity."""
