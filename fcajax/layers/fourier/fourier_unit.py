"""The Fourier unit, a convolution of the spectrum of a feature map, and its local variant."""
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.conv import Conv
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.ops import fourier
from fcajax.typing import AnyArray, Array, Float, Shaped


class FourierUnit(nn.Module):
  """A 1x1 convolution, normalisation and activation on the spectrum of a map.

      y = irfft2(activation(norm(conv1x1(rfft2(x)))))     (both transforms 'ortho')

  The convolution has real part and imaginary part of channel c as its channels 2c and 2c + 1.
  Every output position depends on the whole map. The transform accumulates in float32; the rest
  runs in `dtype`. H and W may be any size from 1.

  Attributes:
    features: output channels.
    groups: of the convolution; divides 2C and 2 `features`.
    norm: factory called `norm(name='norm')`, the result called `(x, train=train)`; None is
      `BatchNorm` with `axis_name`.
    activation: on the spectrum, real and imaginary parts alike.
    implementation: of the transform (see `fcajax.ops.fourier`).
    dtype: compute dtype; None is that of the input.
    axis_name: device axis of `BatchNorm`.

  Raises:
    TypeError: complex or integer input.
    UserError: an empty map, or `groups` that does not divide.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.2 and figure 2.
  """
  features: int
  groups: int = 1
  norm: NormFactory | None = None
  activation: Callable[..., Any] = nn.relu
  implementation: fourier.Implementation = 'auto'
  dtype: DTypeLike | None = None
  axis_name: Any = None

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '...'], train: bool = False) -> Float[Array, 'n h w features']:
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
  """A `FourierUnit` on the four quadrants of a map; its result is repeated over all of them.

  The first ceil(C / 4) channels are cut into quadrants of ceil(H / 2) x ceil(W / 2), stacked as
  channels (top left, bottom left, top right, bottom right), transformed to `features` channels and
  tiled 2 x 2. With an odd side the quadrants overlap by one row or column, and the tiled map is cut
  at H x W. The attributes are those of `FourierUnit`.

  Raises:
    UserError: H or W is 1; otherwise as `FourierUnit`.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.2 and figure 3; the rule for odd
  sizes is this project's.
  """

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '...'], train: bool = False) -> Float[Array, 'n h w features']:
    check_map(x, type(self).__name__)
    height, width = x.shape[1:3]
    if min(height, width) < 2:
      raise UserError(
          f'a map of {height} x {width} is too small for the local Fourier unit, which cuts it '
          'into 2 x 2 quadrants; use lfu=False or a larger input')
    x = x[..., :-(-x.shape[-1] // 4)]
    h, w = -(-height // 2), -(-width // 2)
    quadrants = [x[:, rows, columns] for columns in (slice(w), slice(width - w, None))
                 for rows in (slice(h), slice(height - h, None))]
    y = super().__call__(jnp.concatenate(quadrants, axis=-1), train=train)
    return jnp.tile(y, (1, 2, 2, 1))[:, :height, :width]


def check_map(x: Shaped[AnyArray, '...'], where: str) -> None:
  """Raises an error that names `where` unless `x` is a real floating-point `[N, H, W, C]`."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f'{where} got {x.dtype} values; cast them to float32 or bfloat16')
  if x.ndim != 4 or 0 in x.shape[1:]:
    raise UserError(f'{where} got shape {x.shape}; it takes [N, H, W, C] without empty axes')


def check_groups(groups: int, where: str, **channels: int) -> None:
  """Raises `UserError` unless `groups` divides every number of channels."""
  for name, count in channels.items():
    if count % groups:
      raise UserError(
          f'{where}: groups={groups} does not divide {name.replace("_", " ")}={count}; '
          'use a common divisor of its inputs and outputs')
