"""Colour as JPEG defines it: full-range YCbCr (JFIF 1.02) and 4:2:0 chroma planes.

Pixels are floats (or uint8) in 0..255; Y, Cb and Cr are in 0..255 with grey at Cb = Cr = 128.
"""
import jax
import jax.numpy as jnp
import numpy as np

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
    raise ValueError(f'{what} needs three channels on the last axis; got shape {x.shape}. '
                     'Repeat a grey image three times')
  return x.astype(jnp.float32)


def _mix(x, matrix):
  # HIGHEST: a GPU would otherwise round the pixels to ten mantissa bits.
  return jnp.einsum('...c,dc->...d', x, jnp.asarray(matrix, jnp.float32),
                    precision=jax.lax.Precision.HIGHEST)


def rgb_to_ycbcr(x):
  """RGB to full-range YCbCr.

  Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772 + 128, Cr = (R - Y) / 1.402 + 128.

  Args:
    x: RGB in 0..255, `[..., 3]`, any real dtype.
  Returns:
    YCbCr in 0..255, `[..., 3]` float32, not rounded.
  Raises:
    ValueError: the last axis is not 3.
  """
  return _mix(_three_channels(x, 'rgb_to_ycbcr'), RGB_TO_YCBCR) + _CHROMA_OFFSET


def ycbcr_to_rgb(x):
  """Full-range YCbCr to RGB, the inverse of `rgb_to_ycbcr`.

  Args:
    x: YCbCr in 0..255, `[..., 3]`.
  Returns:
    RGB, `[..., 3]` float32, neither rounded nor clipped: colours outside the cube stay outside.
  Raises:
    ValueError: the last axis is not 3.
  """
  return _mix(_three_channels(x, 'ycbcr_to_rgb') - _CHROMA_OFFSET, YCBCR_TO_RGB)


def halve(x):
  """Mean of every 2 x 2 pixels: how JPEG makes 4:2:0 chroma (libjpeg's h2v2 downsampling).

  Args:
    x: planes `[N, H, W, C]`, even H and W.
  Returns:
    `[N, H/2, W/2, C]` float32, not rounded.
  Raises:
    ValueError: H or W is odd.
  """
  n, height, width, channels = x.shape
  if height % 2 or width % 2:
    raise ValueError(f'4:2:0 chroma needs an even height and width; got {height} x {width}. '
                     'Crop or pad the image by one pixel')
  x = jnp.asarray(x).astype(jnp.float32)
  return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _edge_pad(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')


def _three_taps(x, side, centre):
  """Separable `[side, centre, side]` filter of an array padded by one on each side."""
  x = side * (x[:, :-2] + x[:, 2:]) + centre * x[:, 1:-1]
  return side * (x[:, :, :-2] + x[:, :, 2:]) + centre * x[:, :, 1:-1]


def double(x):
  """Enlarges planes twice, bilinearly with half-pixel centres (libjpeg's "fancy" upsampling).

  A new pixel is 9/16, 3/16, 3/16, 1/16 of its four nearest old ones; borders are repeated.

  Args:
    x: planes `[N, H, W, C]`.
  Returns:
    `[N, 2H, 2W, C]` float32, not rounded.
  """
  n, height, width, channels = x.shape
  x = _edge_pad(jnp.asarray(x).astype(jnp.float32))
  near = 0.75 * x[:, 1:-1]
  x = jnp.stack([near + 0.25 * x[:, :-2], near + 0.25 * x[:, 2:]], 2)
  x = x.reshape(n, 2 * height, width + 2, channels)
  near = 0.75 * x[:, :, 1:-1]
  x = jnp.stack([near + 0.25 * x[:, :, :-2], near + 0.25 * x[:, :, 2:]], 3)
  return x.reshape(n, 2 * height, 2 * width, channels)


def enlarge_and_halve(x):
  """`halve(double(x))` in one pass: the chroma of the published pipeline.

  That pipeline enlarges the whole image twice and lets a 4:2:0 encoder halve Cb and Cr again,
  so that chroma blocks pair with luma blocks one to one. Both steps together are the separable
  filter [1/8, 3/4, 1/8] with repeated borders, and the enlarged image need never exist.

  Args:
    x: planes `[N, H, W, C]`.
  Returns:
    `[N, H, W, C]` float32.
  """
  return _three_taps(_edge_pad(jnp.asarray(x).astype(jnp.float32)), 0.125, 0.75)
