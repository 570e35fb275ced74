"""From Hounsfield units to what the network sees; arrays and tensors only, no files."""
