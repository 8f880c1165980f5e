"""The device half of preprocessing: normalisation, colour and the block DCT, inside the step."""
import jax.numpy as jnp
import numpy as np

from fcajax.ops import coefficients, color


def _normalize(x, preprocessing):
  """`(x / 255 - mean) / std` per channel, as one multiplication and one addition."""
  scale = 1 / (255 * np.asarray(preprocessing.std))
  offset = -np.asarray(preprocessing.mean) / np.asarray(preprocessing.std)
  return x.astype(jnp.float32) * jnp.asarray(scale, jnp.float32) + jnp.asarray(offset, jnp.float32)


def split_planes(packed):
  """4:2:0 planes as the host packs them into one array.

  Args:
    packed: uint8 `[N, 3H/2, W]`: H rows of Y, then H/4 rows holding Cb's H/2 x W/2 samples in
      order, then as many for Cr.
  Returns:
    (luma `[N, H, W, 1]`, chroma `[N, H/2, W/2, 2]`), uint8.
  """
  n, rows, width = packed.shape
  height = rows * 2 // 3
  chroma = packed[:, height:].reshape(n, 2, height // 2, width // 2)
  return packed[:, :height, :, None], chroma.transpose(0, 2, 3, 1)


def _pixels(x, preprocessing):
  if x.ndim == 3:
    luma, chroma = split_planes(x)
    ycbcr = jnp.concatenate([luma.astype(jnp.float32), color.double(chroma)], -1)
    if preprocessing.representation == 'ycbcr':
      return _normalize(ycbcr, preprocessing)
    return _normalize(color.ycbcr_to_rgb(ycbcr), preprocessing)
  if preprocessing.representation == 'ycbcr':
    return _normalize(color.rgb_to_ycbcr(x), preprocessing)
  return _normalize(x, preprocessing)


def _coefficients(x, preprocessing):
  subset = coefficients.coefficient_subset(preprocessing.coefficients)
  if x.dtype in (jnp.int8, jnp.int16):
    if preprocessing.coefficient_scale is None:
      raise ValueError('integer coefficients need preprocessing.coefficient_scale; the input '
                       "pipeline sets it with dct_on='host'")
    x = x.astype(jnp.float32) * np.asarray(preprocessing.coefficient_scale, np.float32)
  elif x.ndim == 3:
    x = coefficients.planes_to_coefficients(*split_planes(x), subset, preprocessing.chroma)
  else:
    x = coefficients.rgb_to_coefficients(x, subset, preprocessing.chroma)
  if preprocessing.coefficient_mean is None:
    return x
  return coefficients.normalize_coefficients(
      x, np.asarray(preprocessing.coefficient_mean, np.float32),
      np.asarray(preprocessing.coefficient_std, np.float32))


def transform(preprocessing, dtype):
  """The function behind `fcajax.preprocess.device_transform`."""
  convert = _coefficients if preprocessing.representation == 'dct' else _pixels

  def to_input(x):
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise TypeError(f'expected uint8 images, 0 to 255, or what the input pipeline sends; got '
                      f'{x.dtype}. Floats in 0..1: (255 * x).astype("uint8")')
    return convert(x, preprocessing).astype(dtype)

  return to_input
