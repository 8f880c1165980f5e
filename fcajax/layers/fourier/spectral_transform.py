"""The spectral transform: the global path of fast Fourier convolution."""
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.layers.conv import Conv, pair
from fcajax.layers.fourier.fourier_unit import (
  FourierUnit,
  LocalFourierUnit,
  check_groups,
  check_map,
)
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.ops.fourier import Implementation
from fcajax.typing import AnyArray, Array, Float


class SpectralTransform(nn.Module):
  """The path from global to global channels in a fast Fourier convolution.

      average pooling s x s   (strides s > 1 only)
      x = activation(norm(conv1x1(x)))                        to features // 2, at least 1
      conv1x1(x + FourierUnit(x) + LocalFourierUnit(x))       to features

  Where the stride s does not divide a side, the last pooling window averages the positions that
  exist, so that the sides become ceil(H / s) and ceil(W / s).

  Attributes:
    features: output channels.
    strides: an int or a pair (height, width).
    groups: of every 1x1 convolution.
    lfu: include the `LocalFourierUnit`.
    norm, activation, implementation, dtype, axis_name: as for `FourierUnit`.

  Raises:
    As `FourierUnit`, and with `lfu` as `LocalFourierUnit`.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.2 and figure 1 (right).
  """
  features: int
  strides: int | tuple[int, int] = 1
  groups: int = 1
  lfu: bool = True
  norm: NormFactory | None = None
  activation: Callable[..., Any] = nn.relu
  implementation: Implementation = 'auto'
  dtype: DTypeLike | None = None
  axis_name: Any = None

  @nn.compact
  def __call__(self, x: Float[AnyArray, '...'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w features']:
    check_map(x, type(self).__name__)
    half = max(1, self.features // 2)
    check_groups(self.groups, type(self).__name__, channels=x.shape[-1], half_features=half,
                 features=self.features)
    strides = pair(self.strides, 'strides')
    if strides != (1, 1):
      overhang = [(0, -size % stride) for size, stride in zip(x.shape[1:3], strides)]
      x = nn.avg_pool(x, strides, strides, overhang, count_include_pad=False)
    x = Conv(half, 1, groups=self.groups, dtype=self.dtype, name='conv1')(x)
    x = norm_factory(self.norm, self.dtype, self.axis_name)(name='norm1')(x, train=train)
    x = self.activation(x)
    unit = {'groups': self.groups, 'norm': self.norm, 'activation': self.activation,
            'implementation': self.implementation, 'dtype': self.dtype,
            'axis_name': self.axis_name}
    y = x + FourierUnit(half, **unit, name='fourier_unit')(x, train=train)
    if self.lfu:
      y += LocalFourierUnit(half, **unit, name='local_fourier_unit')(x, train=train)
    return Conv(self.features, 1, groups=self.groups, dtype=self.dtype, name='conv2')(y)
