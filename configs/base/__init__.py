"""The keys of a config and their checks."""
