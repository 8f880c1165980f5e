"""Colour as JPEG defines it: full-range YCbCr (JFIF 1.02) and the enlarging of chroma planes.

Pixels are in 0..255 of any real dtype. Y, Cb and Cr are in 0..255, and grey has Cb = Cr = 128.
"""
import jax
import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.typing import AnyArray, Array, Float, Real

# ITU-R BT.601 luma weights, the only ones JFIF knows.
_RED, _BLUE = 0.299, 0.114
_GREEN = 1 - _RED - _BLUE

RGB_TO_YCBCR = np.array([
    [_RED, _GREEN, _BLUE],
    [-_RED / (2 * (1 - _BLUE)), -_GREEN / (2 * (1 - _BLUE)), 0.5],
    [0.5, -_GREEN / (2 * (1 - _RED)), -_BLUE / (2 * (1 - _RED))],
])
"""`[Y, Cb - 128, Cr - 128] = RGB_TO_YCBCR @ [R, G, B]`, float64 `[3, 3]`."""

YCBCR_TO_RGB = np.linalg.inv(RGB_TO_YCBCR)
"""Inverse of `RGB_TO_YCBCR`."""

_CHROMA_OFFSET = np.array([0., 128., 128.], np.float32)


def _three_channels(x, what):
  x = jnp.asarray(x)
  if x.ndim < 1 or x.shape[-1] != 3:
    raise UserError(f'{what} needs three channels on the last axis; got shape {x.shape}. '
                     'Repeat a grey image three times')
  return x.astype(jnp.float32)


def _mix(x, matrix):
  # HIGHEST: a GPU would otherwise round the pixels to ten mantissa bits.
  return jnp.einsum('...c,dc->...d', x, jnp.asarray(matrix, jnp.float32),
                    precision=jax.lax.Precision.HIGHEST)


def rgb_to_ycbcr(x: Real[AnyArray, '...']) -> Float[Array, '... 3']:
  """Converts RGB in 0..255, `[..., 3]`, to full-range YCbCr in 0..255, float32, not rounded.

      Y = 0.299 R + 0.587 G + 0.114 B,  Cb = (B - Y) / 1.772 + 128,  Cr = (R - Y) / 1.402 + 128

  Raises:
    UserError: the last axis is not 3.
  """
  return _mix(_three_channels(x, 'rgb_to_ycbcr'), RGB_TO_YCBCR) + _CHROMA_OFFSET


def ycbcr_to_rgb(x: Real[AnyArray, '...']) -> Float[Array, '... 3']:
  """Converts full-range YCbCr in 0..255, `[..., 3]`, to RGB: the inverse of `rgb_to_ycbcr`.

  The result is float32, neither rounded nor clipped, so it may lie outside 0..255.

  Raises:
    UserError: the last axis is not 3.
  """
  return _mix(_three_channels(x, 'ycbcr_to_rgb') - _CHROMA_OFFSET, YCBCR_TO_RGB)


def double(x: Real[AnyArray, 'n h w c']) -> Float[Array, 'n 2*h 2*w c']:
  """Enlarges planes twice, bilinearly with half-pixel centres (libjpeg's "fancy" upsampling).

  A new pixel is 9/16, 3/16, 3/16, 1/16 of its four nearest old ones; borders are repeated. The
  result is float32, not rounded.
  """
  n, height, width, channels = x.shape
  x = jnp.asarray(x).astype(jnp.float32)
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  near = 0.75 * x[:, 1:-1]
  x = jnp.stack([near + 0.25 * x[:, :-2], near + 0.25 * x[:, 2:]], 2)
  x = x.reshape(n, 2 * height, width + 2, channels)
  near = 0.75 * x[:, :, 1:-1]
  x = jnp.stack([near + 0.25 * x[:, :, :-2], near + 0.25 * x[:, :, 2:]], 3)
  return x.reshape(n, 2 * height, 2 * width, channels)
