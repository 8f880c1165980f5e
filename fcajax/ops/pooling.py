"""Pooling: adaptive averages as two constant matrix products, and 3x3 maxima."""
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from fcajax.errors import UserError
from fcajax.ops.target import is_cpu_only
from fcajax.typing import AnyArray, Array, Float


@functools.lru_cache(maxsize=1024)
def adaptive_pooling_matrix(
    input_size: int, output_size: int) -> Float[np.ndarray, 'output_size input_size']:
  """Returns the matrix P that averages each of PyTorch's adaptive bins.

      y = P x,  bin i = [floor(i * input / output), ceil((i + 1) * input / output))

  Bins overlap where `output_size` does not divide `input_size`, and repeat where it is larger. The
  matrix is float64, shared between callers and read-only.

  Raises:
    UserError: a size below 1.
  """
  if input_size < 1 or output_size < 1:
    raise UserError(f'cannot pool {input_size} positions to {output_size}; both must be positive')
  bins = np.arange(output_size)[:, None]
  position = np.arange(input_size)
  inside = (position >= bins * input_size // output_size) & (
      position < -(-(bins + 1) * input_size // output_size))
  matrix = inside / inside.sum(axis=1, keepdims=True)
  matrix.setflags(write=False)
  return matrix


def adaptive_average_pool(
    x: Float[AnyArray, '*n h w c'], size: Sequence[int]) -> Float[Array, '*n out_h out_w c']:
  """Averages a map over PyTorch's adaptive bins to `size` (height, width).

  Two products with constant matrices: one compilation for each input size, and a gradient without
  scatter, which is the same in every run. Sums are in float32; the result has the dtype of `x`.
  """
  height, width = size
  y = jnp.asarray(x)
  for (input_size, output_size), axes in (((x.shape[-3], height), '...hwc,oh->...owc'),
                                          ((x.shape[-2], width), '...hwc,ow->...hoc')):
    if input_size != output_size:
      matrix = adaptive_pooling_matrix(input_size, output_size).astype(np.float32)
      y = jnp.einsum(axes, y, matrix, precision=lax.Precision.HIGHEST,
                     preferred_element_type=jnp.float32)
  return y.astype(x.dtype)


def max_pool(x: Float[AnyArray, 'n h w c']) -> Float[Array, 'n half_h half_w c']:
  """Takes maxima over 3x3 windows with stride 2 and padding 1, as behind a ResNet's stem.

  The sides of the result are ceil(h / 2) and ceil(w / 2). On a CPU the maxima are those of shifted
  slices, rows then columns: there the gradient of XLA's windowed maximum is a scatter, many times
  slower. Where several values of a window are the maximum, this shares the gradient among them and
  XLA's gives it to the first. After a ReLU both are the same, since tied values are 0 and pass no
  gradient on.
  """
  lowest = -float('inf')
  if not is_cpu_only():
    return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                             ((0, 0), (1, 1), (1, 1), (0, 0)))
  padded = lax.pad(x, lax.full((), lowest, x.dtype), ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))
  height, width = (2 * ((n - 1) // 2) + 1 for n in x.shape[1:3])
  rows = functools.reduce(lax.max, [padded[:, i:i + height:2] for i in range(3)])
  return functools.reduce(lax.max, [rows[:, :, j:j + width:2] for j in range(3)])
