"""Layers on the spectrum of a feature map: the global path of fast Fourier convolution."""
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv, pair
from fcajax.layers.norm import BatchNorm
from fcajax.ops import fourier


def norm_factory(norm, dtype, axis_name):
  """`norm`, or `BatchNorm` with this dtype and axis where it is None."""
  return norm or functools.partial(BatchNorm, dtype=dtype, axis_name=axis_name)


class FourierUnit(nn.Module):
  """A 1x1 convolution, normalisation and activation on the spectrum of `[N, H, W, C]`.

      irfft2(activation(norm(conv1x1(rfft2(x)))))     (both transforms 'ortho')

  Real and imaginary parts of channel c are the channels 2c and 2c + 1 of the convolution. Every
  output position depends on the whole map. The transform accumulates in float32; the rest runs
  in `dtype`. Any H and W of at least 1.

  Args:
    features: output channels.
    groups: of the convolution; divides 2C and 2 `features`.
    norm: factory called `norm(name='norm')`, the result called `(x, train=train)`; None is
      `BatchNorm` with `axis_name`.
    activation: on the spectrum, real and imaginary parts alike.
    implementation: of the transform: 'fft', 'dft' or 'auto' (see `fcajax.ops.fourier`).
    dtype: compute dtype; None is that of the input.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.3.
  """
  features: int
  groups: int = 1
  norm: Callable | None = None
  activation: Callable = nn.relu
  implementation: str = 'auto'
  dtype: Any = None
  axis_name: Any = None

  @nn.compact
  def __call__(self, x, train=False):
    check_map(x, type(self).__name__)
    if self.dtype is not None:
      x = x.astype(self.dtype)
    shape = x.shape[1:3]
    check_groups(self.groups, type(self).__name__, spectrum_channels=2 * x.shape[-1],
                 spectrum_features=2 * self.features)
    halves = fourier.rfft2(x, implementation=self.implementation)
    y = jnp.stack(halves, axis=-1).astype(x.dtype)
    y = y.reshape(*y.shape[:-2], 2 * x.shape[-1])
    y = Conv(2 * self.features, 1, groups=self.groups, dtype=self.dtype, name='conv')(y)
    y = norm_factory(self.norm, self.dtype, self.axis_name)(name='norm')(y, train=train)
    y = self.activation(y)
    y = y.reshape(*y.shape[:-1], self.features, 2)
    y = fourier.irfft2((y[..., 0], y[..., 1]), shape, implementation=self.implementation)
    return y.astype(x.dtype)


class LocalFourierUnit(FourierUnit):
  """A `FourierUnit` on the four quadrants of a map, its result repeated over all of them.

  The first ceil(C / 4) channels of `[N, H, W, C]` are cut into quadrants of
  ceil(H / 2) x ceil(W / 2), stacked as channels (top left, bottom left, top right, bottom right),
  transformed to `features` channels and tiled 2 x 2 to `[N, H, W, features]`. With an odd side
  the quadrants overlap by one row or column, and the tiling is cut at H x W.

  Fields as for `FourierUnit`. Raises ValueError where H or W is 1.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.3; the odd sizes are ours.
  """

  @nn.compact
  def __call__(self, x, train=False):
    check_map(x, type(self).__name__)
    height, width = x.shape[1:3]
    if min(height, width) < 2:
      raise ValueError(
          f'a map of {height} x {width} is too small for the local Fourier unit, which cuts it '
          'into 2 x 2 quadrants; use lfu=False or a larger input')
    x = x[..., :-(-x.shape[-1] // 4)]
    h, w = -(-height // 2), -(-width // 2)
    quadrants = [x[:, rows, columns] for columns in (slice(w), slice(width - w, None))
                 for rows in (slice(h), slice(height - h, None))]
    y = super().__call__(jnp.concatenate(quadrants, axis=-1), train=train)
    return jnp.tile(y, (1, 2, 2, 1))[:, :height, :width]


class SpectralTransform(nn.Module):
  """The global-to-global path: `[N, H, W, C] -> [N, ceil(H / s), ceil(W / s), features]`.

      average pooling s x s   (strides s > 1 only)
      x = activation(norm(conv1x1(x)))                        to features // 2, at least 1
      conv1x1(x + FourierUnit(x) + LocalFourierUnit(x))       to features

  Where s does not divide a side, the last pooling window averages the positions that exist.

  Args:
    features: output channels.
    strides: an int or a pair.
    groups: of every 1x1 convolution.
    lfu: include the `LocalFourierUnit`.
    norm, activation, implementation, dtype, axis_name: as for `FourierUnit`.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.3 and figure 2.
  """
  features: int
  strides: int | tuple[int, int] = 1
  groups: int = 1
  lfu: bool = True
  norm: Callable | None = None
  activation: Callable = nn.relu
  implementation: str = 'auto'
  dtype: Any = None
  axis_name: Any = None

  @nn.compact
  def __call__(self, x, train=False):
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


def check_map(x, where):
  """Raises unless `x` is a real floating-point `[N, H, W, C]`."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f'{where} got {x.dtype} values; cast them to float32 or bfloat16')
  if x.ndim != 4 or 0 in x.shape[1:]:
    raise ValueError(f'{where} got shape {x.shape}; it takes [N, H, W, C] without empty axes')


def check_groups(groups, where, **channels):
  """Raises unless `groups` divides every number of channels."""
  for name, count in channels.items():
    if count % groups:
      raise ValueError(
          f'{where}: groups={groups} does not divide {name.replace("_", " ")}={count}; '
          'use a common divisor of its inputs and outputs')
