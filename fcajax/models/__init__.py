"""Whole networks and the registry behind `create_model` and `list_models`."""
