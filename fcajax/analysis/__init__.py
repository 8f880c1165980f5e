"""Parameter and MAC counts, frequency search, heat maps and plots."""
