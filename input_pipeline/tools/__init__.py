"""Commands that prepare data."""
