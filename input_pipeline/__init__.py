"""Where batches come from: sources, decoding, augmentation, loading."""
