"""Turning a tree of images into a prepared folder."""
