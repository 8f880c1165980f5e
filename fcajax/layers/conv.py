"""The convolution that every network uses."""
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.ops.convolution import Lowering, Window, convolve
from fcajax.typing import AnyArray, Array, Float

# N(0, 2 / (kh * kw * features)), He et al. 2015, as torchvision starts its ResNets.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')

PaddingMode: TypeAlias = Literal['zeros', 'reflect', 'replicate', 'circular']
PADDING_MODES = {'zeros': 'constant', 'reflect': 'reflect', 'replicate': 'edge', 'circular': 'wrap'}


def pair(value: Any, name: str) -> tuple[Any, Any]:
  """Returns `value`, an int or a pair, as a pair.

  Raises:
    UserError: it is neither; the message calls it `name`.
  """
  values = (value, value) if isinstance(value, int) else value
  if isinstance(values, str) or len(values) != 2:
    raise UserError(f'{name}={value!r} must be an int or a pair (height, width)')
  return tuple(values)


def _resolve_padding(padding, kernel_size, dilation):
  """The padding as ((top, bottom), (left, right)); None is PyTorch's `dilation * (k - 1) // 2`."""
  if padding is None:
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel_size, dilation))
  rows, columns = pair(padding, 'padding')
  return pair(rows, 'padding'), pair(columns, 'padding')


class Conv(nn.Module):
  """Two-dimensional convolution (cross-correlation) with explicit padding.

      out_h = floor((h + top + bottom - dilation * (kernel_h - 1) - 1) / stride) + 1

  The parameters are those of `nn.Conv`: `kernel` `[kernel_h, kernel_w, c / groups, features]` and,
  with `use_bias`, `bias` `[features]`. The padding is symmetric as in PyTorch; 'SAME' would differ
  at stride 2.

  Attributes:
    features: output channels.
    kernel_size, strides, dilation: an int or a pair (height, width).
    padding: None for `dilation * (k - 1) // 2` on every side, an int, a pair (height, width), or
      pairs ((top, bottom), (left, right)).
    groups: divides input and output channels.
    use_bias: adds one value to each output channel.
    dtype: of the computation and the result; None promotes input and parameters.
    param_dtype: of the parameters.
    kernel_init: He normal over the fan-out.
    padding_mode: as in PyTorch.
    lowering: 'auto' takes XLA's convolution, except on a CPU (`fcajax.target`), where 1x1 and
      depthwise convolutions, groups and wide kernel gradients have faster equivalents
      (`fcajax.ops.convolution`). Results agree up to rounding. 'conv' is always XLA's convolution.
      `fcajax.ops.convolution.force_lowering` sets the meaning of 'auto'.

  Raises:
    UserError: channels that the groups do not divide, a kernel larger than the padded input, an
      unknown padding mode or lowering.
  """
  features: int
  kernel_size: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  padding: Any = None
  dilation: int | tuple[int, int] = 1
  groups: int = 1
  use_bias: bool = False
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32
  kernel_init: Initializer = kaiming_normal
  padding_mode: PaddingMode = 'zeros'
  lowering: Lowering = 'auto'

  @nn.compact
  def __call__(self, x: Float[AnyArray, '...']) -> Float[Array, 'n out_h out_w features']:
    kernel_size = pair(self.kernel_size, 'kernel_size')
    dilation = pair(self.dilation, 'dilation')
    window = Window(pair(self.strides, 'strides'),
                    _resolve_padding(self.padding, kernel_size, dilation), dilation, self.groups)
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
      raise UserError(f'Conv takes [N, H, W, C], not an array of shape {shape}')
    if shape[-1] % self.groups or self.features % self.groups:
      raise UserError(f'groups={self.groups} must divide the {shape[-1]} input channels and '
                       f'features={self.features}')
    if self.padding_mode not in PADDING_MODES:
      raise UserError(f'padding_mode={self.padding_mode!r} is not one of '
                       f'{", ".join(map(repr, PADDING_MODES))}')
    if min(window.output_size(shape[1:3], kernel_size)) < 1:
      raise UserError(
          f'a {kernel_size[0]} x {kernel_size[1]} kernel with dilation {window.dilation} and '
          f'padding {window.padding} does not fit into an input of {shape[1]} x {shape[2]}; use '
          'larger images, more padding or a smaller kernel')
