"""From Hounsfield units to the input of the network; arrays and tensors only, no files."""
