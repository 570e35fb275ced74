"""How the head becomes slices: sampling, artefacts, noise, kernels, DICOM."""
