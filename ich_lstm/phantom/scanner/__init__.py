"""Turning the head into slices: sampling, artefacts, noise, kernels, DICOM."""
