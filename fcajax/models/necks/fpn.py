"""Feature pyramid network."""
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv
from fcajax.typing import Array, Float

# U(-a, a) with a = sqrt(6 / (fan_in + fan_out)), as mmdetection starts pyramids and matrices.
xavier_uniform = nn.initializers.xavier_uniform()


class FeaturePyramid(nn.Module):
  """Feature maps of a backbone -> as many maps of equal width, and smaller ones behind them.

      M_l = lateral_l(C_l) + upsample(M_(l+1)),  P_l = output_l(M_l)

  The upsampling is to the nearest cell and to the size of the finer map, odd or not. Every map
  beyond the backbone's takes each second cell of the one before (P6 of P2 to P6).

  Attributes:
    channels: width of every map.
    levels: maps in the result.
    dtype: of the computation.

  Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3.
  """
  channels: int = 256
  levels: int = 5
  dtype: Any = None

  @nn.compact
  def __call__(
      self, features: Sequence[Float[Array, 'n _ _ _']],
  ) -> tuple[Float[Array, 'n _ _ c'], ...]:
    """Merges `features`, finest first; the result has the same order."""
    lateral = [self._conv(1, f'lateral{i}')(x) for i, x in enumerate(features)]
    for i in range(len(lateral) - 2, -1, -1):
      lateral[i] = lateral[i] + upsample_nearest(lateral[i + 1], lateral[i].shape[1:3])
    pyramid = [self._conv(3, f'output{i}')(x) for i, x in enumerate(lateral)]
    while len(pyramid) < self.levels:
      pyramid.append(pyramid[-1][:, ::2, ::2])
    return tuple(pyramid)

  def _conv(self, size, name):
    return Conv(self.channels, size, use_bias=True, dtype=self.dtype, kernel_init=xavier_uniform,
                name=name)


def upsample_nearest(x: Float[Array, 'n h w c'], size: tuple[int, int]) -> Float[Array, 'n u v c']:
  """Enlarges to `size`: cell i of the result is cell `floor(i * h / u)` of `x`."""
  for axis, length in zip((1, 2), size):
    x = jnp.take(x, jnp.arange(length) * x.shape[axis] // length, axis=axis)
  return x
