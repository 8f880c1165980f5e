"""Data sets: folders, TFDS, digits."""
