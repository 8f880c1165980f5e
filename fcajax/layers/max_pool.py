"""The 3x3 max pooling behind a ResNet's stem."""
import functools

import jax
from flax import linen as nn
from jax import lax


def max_pool(x):
  """Maxima over 3x3 windows, stride 2, padding 1: `[N, H, W, C] -> [N, ceil(H/2), ceil(W/2), C]`.

  On a CPU as maxima of shifted slices, rows then columns: the gradient of XLA's windowed maximum
  is a scatter there, many times slower. Where several values of a window are the maximum, this
  shares the gradient among them and XLA's gives it to the first; after a ReLU that is the same,
  since what ties is 0 and passes no gradient on.
  """
  if jax.default_backend() != 'cpu':
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
  padded = lax.pad(x, lax.full((), -float('inf'), x.dtype),
                   ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))
  height, width = (2 * ((n - 1) // 2) + 1 for n in x.shape[1:3])
  rows = functools.reduce(lax.max, [padded[:, i:i + height:2] for i in range(3)])
  return functools.reduce(lax.max, [rows[:, :, j:j + width:2] for j in range(3)])
