"""The convolution that every network uses."""
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv_lowering import Window, convolve, force_lowering

__all__ = ['Conv', 'force_lowering', 'kaiming_normal', 'pair', 'resolve_padding']

# N(0, 2 / (kh * kw * features)), He et al. 2015, as torchvision starts its ResNets.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

PADDING_MODES = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge', 'circular': 'wrap'}


def pair(value, name):
  """An int or a pair of ints -> a pair of ints."""
  values = (value, value) if isinstance(value, int) else value
  if isinstance(values, str) or len(values) != 2:
    raise ValueError(f'{name}={value!r} must be an int or a pair (height, width)')
  return tuple(values)


def resolve_padding(padding, kernel_size, dilation):
  """The padding as ((top, bottom), (left, right)); None is PyTorch's `dilation * (k - 1) // 2`."""
  if padding is None:
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation))
  rows, columns = pair(padding, 'padding')
  return pair(rows, 'padding'), pair(columns, 'padding')


class Conv(nn.Module):
  """Two-dimensional convolution (cross-correlation), `[N, H, W, Cin] -> [N, H', W', features]`.

      H' = floor((H + top + bottom - dilation * (kh - 1) - 1) / stride) + 1

  The parameters are those of `nn.Conv`: `kernel` `[kh, kw, Cin / groups, features]` and, with
  `use_bias`, `bias` `[features]`. The padding is explicit and symmetric as in PyTorch, where
  'SAME' would differ at stride 2.

  Args:
    features: output channels.
    kernel_size, strides, dilation: an int or a pair (height, width).
    padding: None for `dilation * (k - 1) // 2` on every side, an int, a pair (height, width), or
      pairs ((top, bottom), (left, right)).
    groups: divides input and output channels.
    use_bias: adds one value per output channel.
    dtype: of the computation and the result; None promotes input and parameters.
    param_dtype: of the parameters.
    kernel_init: He normal over the fan-out.
    padding_mode: 'zeros', 'reflect', 'replicate' or 'circular', as in PyTorch.
    lowering: 'auto' chooses for the backend that JAX runs on when the function is traced: XLA's
      convolution but on a CPU, where 1x1 and depthwise convolutions, groups and wide kernel
      gradients have faster equals (`fcajax.layers.conv_lowering`). Results agree to rounding.
      'conv' is XLA's convolution always; `force_lowering` sets what 'auto' means.

  Raises:
    ValueError: channels that the groups do not divide, a kernel larger than the padded input, an
      unknown padding mode or lowering.
  """
  features: int
  kernel_size: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  padding: Any = None
  dilation: int | tuple[int, int] = 1
  groups: int = 1
  use_bias: bool = False
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable = kaiming_normal
  padding_mode: str = 'zeros'
  lowering: str = 'auto'

  @nn.compact
  def __call__(self, x):
    kernel_size = pair(self.kernel_size, 'kernel_size')
    dilation = pair(self.dilation, 'dilation')
    window = Window(pair(self.strides, 'strides'),
                    resolve_padding(self.padding, kernel_size, dilation), dilation, self.groups)
    self._check(x.shape, kernel_size, window)
    shape = (*kernel_size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,),
                      self.param_dtype) if self.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    if self.padding_mode != 'zeros':
      x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), mode=PADDING_MODES[self.padding_mode])
      window = window._replace(padding=((0, 0), (0, 0)))
    y = convolve(x, kernel, window, self.lowering)
    return y if bias is None else y + bias

  def _check(self, shape, kernel_size, window):
    if len(shape) != 4:
      raise ValueError(f'Conv takes [N, H, W, C], not an array of shape {shape}')
    if shape[-1] % self.groups or self.features % self.groups:
      raise ValueError(f'groups={self.groups} must divide the {shape[-1]} input channels and '
                       f'features={self.features}')
    if self.padding_mode not in PADDING_MODES:
      raise ValueError(f'padding_mode={self.padding_mode!r} is not one of '
                       f'{", ".join(map(repr, PADDING_MODES))}')
    if min(window.output_size(shape[1:3], kernel_size)) < 1:
      raise ValueError(
          f'a {kernel_size[0]} x {kernel_size[1]} kernel with dilation {window.dilation} and '
          f'padding {window.padding} does not fit into an input of {shape[1]} x {shape[2]}; use '
          'larger images, more padding or a smaller kernel')
