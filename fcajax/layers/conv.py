"""The convolution that every network uses."""
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

PADDING_MODES = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge', 'circular': 'wrap'}


def pair(value, name):
  """An int or a pair of ints -> a pair of ints."""
  values = (value, value) if isinstance(value, int) else tuple(value)
  if len(values) != 2:
    raise ValueError(f'{name}={value!r} must be an int or a pair (height, width)')
  return values


def resolve_padding(padding, kernel_size, dilation):
  """The padding as ((top, bottom), (left, right)); None is PyTorch's `dilation * (k - 1) // 2`."""
  if padding is None:
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation))
  rows, columns = pair(padding, 'padding')
  return pair(rows, 'padding'), pair(columns, 'padding')


class Conv(nn.Module):
  """Two-dimensional convolution (cross-correlation) of `[N, H, W, Cin]` with PyTorch's padding.

  The parameters are those of `nn.Conv`: `kernel` `[kh, kw, Cin / groups, features]` and, with
  `use_bias`, `bias` `[features]`.

  Args:
    features: output channels.
    kernel_size, strides, dilation: an int or a pair (height, width).
    padding: None for `dilation * (k - 1) // 2` on every side, an int, a pair (height, width), or
      pairs ((top, bottom), (left, right)).
    groups: divides input and output channels.
    padding_mode: 'zeros', 'reflect', 'replicate' or 'circular', as in PyTorch.
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
    strides = pair(self.strides, 'strides')
    dilation = pair(self.dilation, 'dilation')
    padding = resolve_padding(self.padding, kernel_size, dilation)
    shape = (*kernel_size, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,),
                      self.param_dtype) if self.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    if self.padding_mode != 'zeros':
      x = jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=PADDING_MODES[self.padding_mode])
      padding = ((0, 0), (0, 0))
    y = lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, feature_group_count=self.groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y if bias is None else y + bias
