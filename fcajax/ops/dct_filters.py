"""Colour, chroma resampling and block DCT as one strided convolution.

All three are linear, and all but the colour are separable: a coefficient (u, v) of a block is
`sum_ij a[u, i] a[v, j] (colour mix)[i, j]`, where the rows of `a` are cosines seen through whatever
resampling comes before the transform. Only the selected coefficients are computed.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.ops.dct import dct_basis

_BLOCK = 8


def _taps(weights, step, outputs=_BLOCK):
  """A filter at every `step`-th position as a matrix `[outputs, inputs]`."""
  matrix = np.zeros((outputs, step * (outputs - 1) + len(weights)))
  for i in range(outputs):
    matrix[i, step * i:step * i + len(weights)] = weights
  return matrix


@functools.cache
def block_matrix(chroma):
  """How one axis of a block reads one axis of the pixels, float64 `[frequency, pixel]`.

  Args:
    chroma: 'plain' (8 pixels), 'enlarged' (10: enlarged twice and halved, one beyond each side),
      'halved' (16: the means of pairs) or 'from_half' (6 of a half-size plane: enlarged twice to
      full size, then as 'enlarged', one beyond each side).
  """
  cosines = dct_basis(_BLOCK, dtype=np.float64).T
  if chroma == 'plain':
    return cosines
  if chroma == 'halved':
    return cosines @ _taps([0.5, 0.5], 2)
  enlarged = _taps([0.125, 0.75, 0.125], 1)
  if chroma == 'enlarged':
    return cosines @ enlarged
  # Full-size pixels -1 .. 8 out of half-size samples -1 .. 4: an odd one leans to its right.
  doubled = np.zeros((10, 6))
  for row, pixel in enumerate(range(-1, 9)):
    near, far = pixel // 2 + 1, pixel // 2 + (2 if pixel % 2 else 0)
    doubled[row, near] += 0.75
    doubled[row, min(max(far, 0), 5)] += 0.25
  return cosines @ enlarged @ doubled


def filter_bank(matrix, indices, mix):
  """Convolution kernel of the selected coefficients of every output component.

  Args:
    matrix: `[8, size]`, as `block_matrix` gives it.
    indices: for each output component the coefficients 8u + v.
    mix: `[outputs, inputs]`, each output component as a mix of the input channels.
  Returns:
    float32 `[size, size, inputs, k]`.
  """
  parts = []
  for chosen, weights in zip(indices, mix):
    u, v = np.divmod(np.asarray(chosen, int), _BLOCK)
    parts.append(np.einsum('ki,kj,c->ijck', matrix[u], matrix[v], weights))
  return np.concatenate(parts, -1).astype(np.float32)


def strided_dct(x, kind, indices, mix, stride):
  """Selected coefficients of every block.

  Args:
    x: pixels in 0..255, `[N, H, W, C]`, any real dtype; H and W multiples of `stride`. 128 is
      subtracted first.
    kind: see `block_matrix`; kinds that read beyond the block repeat the image's border.
    indices: for each output component the coefficients 8u + v.
    mix: `[outputs, C]`.
    stride: pixels of x from block to block.
  Returns:
    `[N, H / stride, W / stride, k]` float32.
  """
  kernel = filter_bank(block_matrix(kind), indices, np.asarray(mix))
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
