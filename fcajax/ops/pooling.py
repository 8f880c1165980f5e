"""Adaptive average pooling as two constant matrix products."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax


@functools.lru_cache(maxsize=1024)
def adaptive_pooling_matrix(input_size, output_size):
  """The matrix `P` `[output_size, input_size]` that averages each of PyTorch's adaptive bins.

      y = P x,  bin i = [floor(i * input / output), ceil((i + 1) * input / output))

  Bins overlap where `output_size` does not divide `input_size`, and repeat where it is larger.

  Returns:
    float64, read-only: the array is shared between callers.
  """
  if input_size < 1 or output_size < 1:
    raise ValueError(f'cannot pool {input_size} positions to {output_size}; both must be positive')
  bins = np.arange(output_size)[:, None]
  position = np.arange(input_size)
  inside = (position >= bins * input_size // output_size) & (
      position < -(-(bins + 1) * input_size // output_size))
  matrix = inside / inside.sum(axis=1, keepdims=True)
  matrix.setflags(write=False)
  return matrix


def adaptive_average_pool(x, size):
  """Averages `[..., H, W, C]` over PyTorch's adaptive bins to `[..., h, w, C]`.

  Two matrix products with constant matrices: one compilation per input size, and a gradient
  without scatter, so the same on every run. Sums are in float32; the result has `x`'s dtype.

  Args:
    x: `[..., H, W, C]`.
    size: `(h, w)`.
  """
  height, width = size
  y = x
  for matrix_size, axes in (((x.shape[-3], height), '...hwc,oh->...owc'),
                            ((x.shape[-2], width), '...hwc,ow->...hoc')):
    if matrix_size[0] != matrix_size[1]:
      matrix = adaptive_pooling_matrix(*matrix_size).astype(np.float32)
      y = jnp.einsum(axes, y, matrix, precision=lax.Precision.HIGHEST,
                     preferred_element_type=jnp.float32)
  return y.astype(x.dtype)
