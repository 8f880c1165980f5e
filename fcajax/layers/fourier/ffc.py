"""Fast Fourier convolution on a local and a global half, and on one tensor."""
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.conv import Conv, PaddingMode, kaiming_normal, pair
from fcajax.layers.fourier.fourier_unit import check_groups, check_map
from fcajax.layers.fourier.spectral_transform import SpectralTransform
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.ops.fourier import Implementation
from fcajax.ops.target import is_cpu_only
from fcajax.typing import AnyArray, Array, Float

# (local, global); a half without channels is None.
Halves: TypeAlias = tuple[
    Float[AnyArray, 'n h w c_local'] | None, Float[AnyArray, 'n h w c_global'] | None]
OutputHalves: TypeAlias = tuple[
    Float[Array, 'n out_h out_w out_local'] | None,
    Float[Array, 'n out_h out_w out_global'] | None]


def split_channels(channels: int, ratio: float) -> tuple[int, int]:
  """Returns (local, global) channels: global is `channels * ratio` rounded down, local the rest.

  The product counts as exact up to 1e-6, so that 0.29 of 100 channels is 29 although the
  floating-point product is below it.

  Raises:
    UserError: `ratio` is outside [0, 1].
  """
  if not 0 <= ratio <= 1:
    raise UserError(f'ratio={ratio} is outside [0, 1]; it is the share of global channels')
  global_channels = math.floor(channels * ratio + 1e-6)
  return channels - global_channels, global_channels


def split(x: Float[AnyArray, 'n h w c'], ratio: float) -> Halves:
  """Splits channels into (local, global). The local ones come first; an empty half is None."""
  local_channels, _ = split_channels(x.shape[-1], ratio)
  halves = x[..., :local_channels], x[..., local_channels:]
  return tuple(half if half.shape[-1] else None for half in halves)


def join(x: Halves) -> Float[Array, 'n h w c']:
  """Joins (local, global), of which one may be None, into one array."""
  return jnp.concatenate([half for half in x if half is not None], axis=-1)


class FastFourierConv(nn.Module):
  """Fast Fourier convolution of a (local, global) pair of maps.

      local  = conv(local; l2l) + conv(global; g2l)
      global = conv(local; l2g) + SpectralTransform(global; g2g)

  The sides of the result are ceil(H / s) and ceil(W / s), its channels
  `split_channels(features, ratio_out)`. A half without channels is None, on both sides; a single
  array counts as (array, None). The parameters are named after the paths: `l2l`, `g2l`, `l2g` (each
  a `kernel`) and `g2g`. The local output is one convolution over both halves with the two kernels
  joined, except on a CPU (`fcajax.target`), where two convolutions and a sum are faster.

  Attributes:
    features: output channels, local and global together.
    kernel_size, dilation: of the three convolutions; `dilation * (kernel_size - 1)` even.
    ratio_in, ratio_out: share of global channels, in [0, 1]; see `split_channels`.
    strides: an int or a pair, of the convolutions and of the spectral path's pooling.
    groups: of the three convolutions; the spectral path has `groups // 2`, at least 1.
    lfu: local Fourier unit in the spectral path.
    local_to_global, global_to_local, global_to_global: False leaves a path out.
    padding_mode: of the three convolutions.
    norm: factory called `norm(name=...)`, the result called `(x, train=train)`; None is
      `BatchNorm` with `axis_name`.
    activation: inside the spectral path.
    fourier_implementation: see `fcajax.ops.fourier`.
    dtype: compute dtype; parameters and statistics stay float32.
    axis_name: device axis of `BatchNorm`.

  Raises:
    TypeError: complex or integer input.
    UserError: a ratio outside [0, 1]; halves that do not match `ratio_in` or each other;
      `groups` that does not divide; an output left without a path; an even kernel.

  Source: Chi et al., "Fast Fourier Convolution", 2020, section 3.1, figure 1 (left), equations 1
  and 2.
  """
  features: int
  kernel_size: int | tuple[int, int] = 3
  ratio_in: float = 0.5
  ratio_out: float = 0.5
  strides: int | tuple[int, int] = 1
  dilation: int | tuple[int, int] = 1
  groups: int = 1
  lfu: bool = True
  local_to_global: bool = True
  global_to_local: bool = True
  global_to_global: bool = True
  padding_mode: PaddingMode = 'zeros'
  norm: NormFactory | None = None
  activation: Callable[..., Any] = nn.relu
  fourier_implementation: Implementation = 'auto'
  dtype: DTypeLike | None = None
  axis_name: Any = None

  @nn.compact
  def __call__(
      self, x: Halves | Float[AnyArray, 'n h w c_local'], train: bool = False) -> OutputHalves:
    local, global_ = self._halves(x)
    local_out, global_out = split_channels(self.features, self.ratio_out)
    to_local = {'l2l': local, 'g2l': global_ if self.global_to_local else None}
    to_global = {'l2g': local if self.local_to_global else None,
                 'g2g': global_ if self.global_to_global else None}
    to_local, to_global = ({name: half for name, half in paths.items() if half is not None}
                           for paths in (to_local, to_global))
    for channels, paths, half in (local_out, to_local, 'local'), (global_out, to_global, 'global'):
      if channels and not paths:
        raise UserError(f'no path leads to the {channels} channels of the {half} output; '
                         f'switch one on or change ratio_out={self.ratio_out}')
    y_local = self._convolve(to_local, local_out) if local_out else None
    if not global_out:
      return y_local, None
    terms = []
    if 'l2g' in to_global:
      terms.append(self._convolve({'l2g': local}, global_out))
    if 'g2g' in to_global:
      terms.append(SpectralTransform(
          global_out, self.strides, max(1, self.groups // 2), self.lfu, self.norm, self.activation,
          self.fourier_implementation, self.dtype, self.axis_name, name='g2g')(
              global_, train=train))
    return y_local, sum(terms[1:], terms[0])

  def _convolve(self, paths, features):
    """The sum of the convolutions of `{path name: half}`."""
    terms = []
    for name, half in paths.items():
      check_groups(self.groups, f'path {name}', channels=half.shape[-1], features=features)
      shape = (*pair(self.kernel_size, 'kernel_size'), half.shape[-1] // self.groups, features)
      terms.append((half, _Kernel(shape, name=name)()))
    if len(terms) > 1 and not is_cpu_only():
      terms = [_joined(terms, self.groups)]
    conv = Conv(features, self.kernel_size, self.strides, dilation=self.dilation,
                groups=self.groups, dtype=self.dtype, padding_mode=self.padding_mode, parent=None)
    outputs = [conv.apply({'params': {'kernel': kernel}}, half) for half, kernel in terms]
    return sum(outputs[1:], outputs[0])

  def _halves(self, x):
    """The two halves of the input in the compute dtype, checked against the fields."""
    local, global_ = x if isinstance(x, tuple | list) else (x, None)
    halves = [half for half in (local, global_) if half is not None]
    if not halves:
      raise UserError(
          'both halves are None; give (local, global), (local, None) or (None, global)')
    for half in halves:
      check_map(half, type(self).__name__)
    if halves[0].shape[:3] != halves[-1].shape[:3]:
      raise UserError(f'the local half {local.shape} and the global half {global_.shape} differ '
                       'in more than channels')
    given = tuple(0 if half is None else half.shape[-1] for half in (local, global_))
    expected = split_channels(sum(given), self.ratio_in)
    if given != expected:
      raise UserError(
          f'{given[0]} local and {given[1]} global channels given, but ratio_in={self.ratio_in} '
          f'of {sum(given)} channels is {expected[0]} and {expected[1]}; a half of 0 channels '
          'is None')
    kernel_size, dilation = pair(self.kernel_size, 'kernel_size'), pair(self.dilation, 'dilation')
    if any(d * (k - 1) % 2 for k, d in zip(kernel_size, dilation)):
      raise UserError(f'kernel_size={self.kernel_size} would change the size of the map, which '
                       'the spectral path keeps; use an odd size')
    if self.dtype is not None:
      local, global_ = (half if half is None else half.astype(self.dtype)
                        for half in (local, global_))
    return local, global_


def _joined(terms, groups):
  """(input, kernel) of the one convolution that equals the sum of those of all `terms`."""
  # Group by group, so that each group of the joined convolution finds the channels of all terms.
  inputs = jnp.concatenate(
      [x.reshape(*x.shape[:3], groups, x.shape[-1] // groups) for x, _ in terms], axis=-1)
  kernel = jnp.concatenate([kernel for _, kernel in terms], axis=2)
  return inputs.reshape(*inputs.shape[:3], -1), kernel


class _Kernel(nn.Module):
  """Holds the kernel of one path under the name that `Conv` would give it."""
  shape: tuple[int, ...]

  @nn.compact
  def __call__(self):
    return self.param('kernel', kaiming_normal, self.shape, jnp.float32)


class FFCNormAct(FastFourierConv):
  """`FastFourierConv`, then normalisation and activation of each half.

  Attributes, besides those of `FastFourierConv`:
    output_activation: after the norms; None for no activation.
    norm_scale_init: initial scale of the two output norms; None is their own.
  """
  output_activation: Callable[..., Any] | None = nn.relu
  norm_scale_init: Initializer | None = None

  @nn.compact
  def __call__(
      self, x: Halves | Float[AnyArray, 'n h w c_local'], train: bool = False) -> OutputHalves:
    norm = norm_factory(self.norm, self.dtype, self.axis_name)
    options = {} if self.norm_scale_init is None else {'scale_init': self.norm_scale_init}
    halves = []
    for name, half in zip(('norm_local', 'norm_global'), super().__call__(x, train=train)):
      if half is not None:
        half = norm(name=name, **options)(half, train=train)
        if self.output_activation is not None:
          half = self.output_activation(half)
      halves.append(half)
    return tuple(halves)


class FastFourierConv2D(FastFourierConv):
  """`FastFourierConv` from one array to one array, to be used where `nn.Conv` was.

      x = FastFourierConv2D(64, (3, 3), train=train)(x)      # was nn.Conv(64, (3, 3))(x)

  The first channels of both arrays are the local ones.

  Attributes, besides those of `FastFourierConv`:
    use_bias: add one learned value to each output channel.
    train: batch norms inside take the batch's statistics; a field or an argument of the call, as
      `deterministic` is for `nn.Dropout`.
  """
  use_bias: bool = False
  train: bool | None = None

  @nn.compact
  def __call__(self, x: Float[AnyArray, '...'], train: bool | None = None,
               ) -> Float[Array, 'n out_h out_w features']:
    train = nn.merge_param('train', self.train, train)
    check_map(x, type(self).__name__)
    y = join(super().__call__(split(x, self.ratio_in), train=train))
    if not self.use_bias:
      return y
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,), jnp.float32)
    return y + bias.astype(y.dtype)


class FFCSqueezeExcite(nn.Module):
  """Squeeze-and-excitation of a (local, global) pair with one shared squeeze.

      z = relu(W mean_{h, w}[local; global] + b)          C // reduction values, at least 1
      local * sigmoid(Wl z + bl),  global * sigmoid(Wg z + bg)

  A half that is None stays None. The squeeze and the gates are float32 whatever the compute dtype.

  Attributes:
    reduction: divides the channels of both halves together.
    dtype: of the result; None is that of the input.

  Source: Hu et al., "Squeeze-and-Excitation Networks", 2018, on both halves of a fast Fourier
  convolution.
  """
  reduction: int = 16
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Halves, train: bool = False) -> Halves:
    del train
    pooled = jnp.concatenate(
        [jnp.mean(half, axis=(1, 2), dtype=jnp.float32) for half in x if half is not None], axis=-1)
    squeezed = nn.relu(nn.Dense(max(1, pooled.shape[-1] // self.reduction), dtype=jnp.float32,
                                name='squeeze')(pooled))
    scaled = []
    for name, half in zip(('excite_local', 'excite_global'), x):
      if half is not None:
        gate = nn.Dense(half.shape[-1], dtype=jnp.float32, name=name)(squeezed)
        half = half if self.dtype is None else half.astype(self.dtype)
        half = half * nn.sigmoid(gate)[:, None, None].astype(half.dtype)
      scaled.append(half)
    return tuple(scaled)
