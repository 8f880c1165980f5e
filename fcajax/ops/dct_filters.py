"""Colour, chroma resampling and block DCT as one strided convolution.

All three are linear, and all but the colour are separable: a coefficient (u, v) of a block is
`sum_ij a[u, i] a[v, j] (colour mix)[i, j]`, where the rows of `a` are cosines times the resampling
that comes before the transform. Only the selected coefficients are computed.
"""
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.ops.dct import dct_basis
from fcajax.typing import AnyArray, Array, Float, Real

_BLOCK = 8

Resampling = Literal['plain', 'enlarged', 'halved', 'from_half']


def _taps(weights, step, outputs=_BLOCK):
  """A filter at every `step`-th position as a matrix `[outputs, inputs]`."""
  matrix = np.zeros((outputs, step * (outputs - 1) + len(weights)))
  for i in range(outputs):
    matrix[i, step * i:step * i + len(weights)] = weights
  return matrix


@functools.cache
def block_matrix(resampling: Resampling) -> Float[np.ndarray, 'frequency pixel']:
  """Returns the matrix from the pixels along one axis to the 8 frequencies of a block, float64.

  Args:
    resampling: what happens to the pixels before the transform: 'plain', nothing (8 pixels);
      'enlarged', enlarged twice and halved (10 pixels: one beyond each side); 'halved', means of
      pairs (16 pixels); 'from_half', a half-size plane enlarged twice to full size, then as
      'enlarged' (6 pixels: one beyond each side).
  """
  cosines = dct_basis(_BLOCK, dtype=np.float64).T
  if resampling == 'plain':
    return cosines
  if resampling == 'halved':
    return cosines @ _taps([0.5, 0.5], 2)
  enlarged = _taps([0.125, 0.75, 0.125], 1)
  if resampling == 'enlarged':
    return cosines @ enlarged
  # Full-size pixels -1 .. 8 out of half-size samples -1 .. 4: an odd one leans to its right.
  doubled = np.zeros((10, 6))
  for row, pixel in enumerate(range(-1, 9)):
    near, far = pixel // 2 + 1, pixel // 2 + (2 if pixel % 2 else 0)
    doubled[row, near] += 0.75
    doubled[row, min(max(far, 0), 5)] += 0.25
  return cosines @ enlarged @ doubled


def filter_bank(
    matrix: Float[np.ndarray, 'frequency size'], indices: Sequence[Sequence[int]],
    mix: Float[np.ndarray, 'outputs inputs']) -> Float[np.ndarray, 'size size inputs k']:
  """Returns the convolution kernel of the selected coefficients of every output component.

  Args:
    matrix: see `block_matrix`.
    indices: for each output component the coefficients 8u + v.
    mix: each output component as a mix of the input channels.
  """
  parts = []
  for chosen, weights in zip(indices, mix):
    u, v = np.divmod(np.asarray(chosen, int), _BLOCK)
    parts.append(np.einsum('ki,kj,c->ijck', matrix[u], matrix[v], weights))
  return np.concatenate(parts, -1).astype(np.float32)


def strided_dct(
    x: Real[AnyArray, 'n h w c'], resampling: Resampling, indices: Sequence[Sequence[int]],
    mix: Float[np.ndarray, 'outputs c'], stride: int,
) -> Float[Array, 'n h//{stride} w//{stride} k']:
  """Computes the selected coefficients of every block, in float32.

  Args:
    x: pixels in 0..255; h and w are multiples of `stride`. 128 is subtracted first.
    resampling: see `block_matrix`; where it reads beyond the image, the border is repeated.
    indices: for each output component the coefficients 8u + v.
    mix: each output component as a mix of the input channels.
    stride: pixels of x from block to block.
  """
  kernel = filter_bank(block_matrix(resampling), indices, np.asarray(mix))
  outputs = kernel.shape[-1]
  if 16 < outputs < 40:
    # XLA:CPU takes three times as long for these counts as for 40.
    kernel = np.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, 40 - outputs)))
  border = (kernel.shape[0] - stride) // 2
  if border:
    x = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode='edge')
  x = x.astype(jnp.float32) - 128
  # HIGHEST: TF32 would keep ten mantissa bits.
  x = jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST)
  return x[..., :outputs]
