"""A tree of images to a prepared folder."""
