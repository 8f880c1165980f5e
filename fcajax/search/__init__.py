"""FcaNet's two-step search for the frequencies of multi-spectral attention."""
