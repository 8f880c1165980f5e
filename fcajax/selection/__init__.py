"""Names and files of frequencies and coefficients."""
