"""Counts, spectra, receptive fields and heat maps of networks, and the pictures of them."""
