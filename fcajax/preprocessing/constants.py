"""Names and numbers of preprocessing that settings need before JAX is imported."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
REPRESENTATIONS = ('rgb', 'ycbcr', 'dct')
NORMALIZATIONS = ('statistics', 'published', 'none')
