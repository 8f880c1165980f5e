"""Opening trained models, reading images, predicting."""
