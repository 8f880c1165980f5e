"""PyTorch weights: reading them, and where each tensor goes."""
