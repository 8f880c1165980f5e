"""The device half of preprocessing: normalisation, colour and the block DCT, inside the step."""
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.ops import color
from fcajax.preprocessing.host_formats import unpack_coefficients, unpack_planes
from fcajax.selection import coefficients


def _normalize(x, preprocessing):
  """`(x / 255 - mean) / std` per channel, as one multiplication and one addition."""
  scale = 1 / (255 * np.asarray(preprocessing.std))
  offset = -np.asarray(preprocessing.mean) / np.asarray(preprocessing.std)
  return x.astype(jnp.float32) * jnp.asarray(scale, jnp.float32) + jnp.asarray(offset, jnp.float32)


def _pixels(x, preprocessing):
  if x.ndim == 3:
    luma, chroma = unpack_planes(x)
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
      raise UserError('integer coefficients need preprocessing.coefficient_scale; the input '
                       "pipeline sets it with dct_on='host'")
    x = unpack_coefficients(x, preprocessing.coefficient_scale)
  elif x.ndim == 3:
    x = coefficients.planes_to_coefficients(*unpack_planes(x), subset, preprocessing.chroma)
  else:
    x = coefficients.rgb_to_coefficients(x, subset, preprocessing.chroma)
  if preprocessing.coefficient_mean is None:
    return x
  return coefficients.normalize_coefficients(
      x, np.asarray(preprocessing.coefficient_mean, np.float32),
      np.asarray(preprocessing.coefficient_std, np.float32))


def transform(preprocessing: Any, dtype: Any) -> Callable[..., Any]:
  """Returns the function behind `fcajax.preprocessing.spec.device_transform`."""
  convert = _coefficients if preprocessing.representation == 'dct' else _pixels

  def to_input(x):
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise TypeError(f'expected uint8 images, 0 to 255, or what the input pipeline sends; got '
                      f'{x.dtype}. Floats in 0..1: (255 * x).astype("uint8")')
    return convert(x, preprocessing).astype(dtype)

  return to_input
