"""Exact augmentation of block-DCT coefficients: each function equals the operation on pixels.

`channels` names what the last axis holds, one flat index `block**2 c + block u + v` a channel, and
None stands for whole blocks. For a coefficient subset it is `subset.flat`.
"""
import jax.numpy as jnp
import numpy as np


def _frequencies(coefficients, channels, block):
  """Component and frequencies (c, u, v) of every channel, three int arrays `[K]`."""
  width = coefficients.shape[-1]
  if channels is None:
    if width % (block * block):
      raise ValueError(f'{width} channels are not whole {block} x {block} blocks; name them with '
                       'channels=, one flat index a channel')
    channels = np.arange(width)
  channels = np.asarray(channels, int)
  if channels.shape != (width,):
    raise ValueError(f'{channels.size} channel indices for {width} channels; give one each')
  component, index = np.divmod(channels, block * block)
  return component, *np.divmod(index, block)


def _signs(frequency, dtype):
  return jnp.asarray(1 - 2 * (frequency % 2), dtype)


def dct_flip_horizontal(coefficients, channels=None, block=8):
  """Mirrors left and right: reverses the blocks of a row, negates odd horizontal frequencies.

  `cos(pi v (W - 1 - j + 1/2) / W) = (-1)^v cos(pi v (j + 1/2) / W)`.

  Args:
    coefficients: `[N, H/block, W/block, K]`, before normalisation (or with zero mean at odd v).
    channels: flat index of each channel, or None for whole blocks.
    block: block size.
  Returns:
    The coefficients of the mirrored image, same shape and dtype.
  Raises:
    ValueError: `channels` does not match K.
  """
  _, _, v = _frequencies(coefficients, channels, block)
  return coefficients[:, :, ::-1] * _signs(v, coefficients.dtype)


def dct_flip_vertical(coefficients, channels=None, block=8):
  """Mirrors top and bottom; arguments as `dct_flip_horizontal`."""
  _, u, _ = _frequencies(coefficients, channels, block)
  return coefficients[:, ::-1] * _signs(u, coefficients.dtype)


def dct_transpose(coefficients, channels=None, block=8):
  """Swaps rows and columns of the image, blocks and frequencies alike.

  Args:
    coefficients: `[N, H/block, W/block, K]`.
    channels: flat index of each channel, or None for whole blocks.
    block: block size.
  Returns:
    `[N, W/block, H/block, K]`.
  Raises:
    ValueError: the channels hold (u, v) of a component without (v, u).
  """
  component, u, v = _frequencies(coefficients, channels, block)
  place = {key: i for i, key in enumerate(zip(component.tolist(), u.tolist(), v.tolist()))}
  missing = [(c, b, a) for c, a, b in place if (c, b, a) not in place]
  if missing:
    c, a, b = missing[0]
    raise ValueError(
        f'a rotation needs (v, u) wherever there is (u, v): component {c} has ({b}, {a}) but not '
        f'({a}, {b}). Rotate before the selection or choose a symmetric subset such as 24S')
  source = np.array([place[c, b, a] for c, a, b in place])
  return coefficients.transpose(0, 2, 1, 3)[..., source]


def dct_rot90(coefficients, k=1, channels=None, block=8):
  """Rotates by k quarter turns anticlockwise, as `jnp.rot90(image, k, axes=(1, 2))`.

  Args:
    coefficients: `[N, H/block, W/block, K]`.
    k: quarter turns, any int.
    channels: flat index of each channel, or None for whole blocks.
    block: block size.
  Returns:
    The coefficients of the rotated image; H and W swap when k is odd.
  Raises:
    ValueError: k is odd and the channels hold (u, v) of a component without (v, u).
  """
  k %= 4
  if k == 2:
    return dct_flip_vertical(dct_flip_horizontal(coefficients, channels, block), channels, block)
  if k == 1:
    return dct_flip_vertical(dct_transpose(coefficients, channels, block), channels, block)
  if k == 3:
    return dct_flip_horizontal(dct_transpose(coefficients, channels, block), channels, block)
  return coefficients


def dct_crop(coefficients, top, left, height, width, block=8):
  """Crops along block borders; all four numbers are pixels, as for the image.

  Args:
    coefficients: `[N, H/block, W/block, K]`.
    top: first row, a multiple of `block`.
    left: first column, a multiple of `block`.
    height: rows to keep, a multiple of `block`.
    width: columns to keep, a multiple of `block`.
    block: block size.
  Returns:
    `[N, height/block, width/block, K]`.
  Raises:
    ValueError: a number is no multiple of `block`, or the crop leaves the image.
  """
  for name, value in (('top', top), ('left', left), ('height', height), ('width', width)):
    if value % block:
      raise ValueError(f'{name}={value} is no multiple of the block size {block}; only crops along '
                       'block borders are exact on coefficients')
  rows, columns = coefficients.shape[1] * block, coefficients.shape[2] * block
  if (top < 0 or left < 0 or height < block or width < block
      or top + height > rows or left + width > columns):
    raise ValueError(f'a crop of {height} x {width} at ({top}, {left}) leaves the image of '
                     f'{rows} x {columns}')
  return coefficients[:, top // block:(top + height) // block,
                      left // block:(left + width) // block]
