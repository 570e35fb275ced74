"""What is read of a header, decoded: values, frames, geometry, whose it is."""
