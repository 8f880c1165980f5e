"""From an encoded image to the input of a network."""
