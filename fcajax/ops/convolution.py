"""Convolution by several lowerings: equal results, chosen by the platform and the shapes.

Every lowering is differentiable in both modes and may be vmapped.
"""
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from fcajax.errors import UserError
from fcajax.ops.target import is_cpu_only
from fcajax.typing import AnyArray, Array, Float

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Grouped convolutions are widened to dense ones of this many input channels.
_BLOCK_CHANNELS = 64
# Fewer input channels than this make matrix products too thin, so the window is unrolled first.
_THIN_CHANNELS = 16


Input: TypeAlias = Float[AnyArray, 'n h w c_in']
Kernel: TypeAlias = Float[AnyArray, 'kernel_h kernel_w c_in_of_group c_out']
Output: TypeAlias = Float[Array, 'n out_h out_w c_out']


class Window(NamedTuple):
  """Strides, padding ((top, bottom), (left, right)), dilation, and the number of groups."""
  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  dilation: tuple[int, int]
  groups: int

  def output_size(self, size: Sequence[int], kernel_size: Sequence[int]) -> tuple[int, ...]:
    """Returns the spatial size of the result; at most 0 where the kernel does not fit."""
    return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(
        size, kernel_size, self.strides, self.padding, self.dilation))


def library(x: Input, kernel: Kernel, window: Window) -> Output:
  """Calls XLA's own convolution."""
  return lax.conv_general_dilated(
      x, kernel, window.strides, window.padding, rhs_dilation=window.dilation,
      feature_group_count=window.groups, dimension_numbers=_DIMENSIONS)


def matmul(x: Input, kernel: Kernel, window: Window) -> Output:
  """Sums matrix products of shifted slices; for depthwise kernels, shifted multiply-adds.

      y[n, p, q] = sum over i, j of x[n, s p + d i, s q + d j] kernel[i, j]

  A 1x1 kernel is a single product. Vmapping over kernels gives batched products, where XLA's
  convolution would become a grouped one.
  """
  groups, channels = window.groups, x.shape[-1]
  if groups == 1 and channels < _THIN_CHANNELS and math.prod(kernel.shape[:2]) > 1:
    columns = jnp.concatenate([part for _, part in _slices(x, kernel, window)], axis=-1)
    return _product(columns, kernel.reshape(-1, kernel.shape[-1])).astype(x.dtype)
  depthwise = groups == channels == kernel.shape[-1]
  total = 0
  for (i, j), part in _slices(x, kernel, window):
    if depthwise:
      total += part.astype(_accumulator(x)) * kernel[i, j, 0]
    elif groups == 1:
      total += _product(part, kernel[i, j])
    else:
      part = part.reshape(*part.shape[:3], groups, -1)
      weights = kernel[i, j].reshape(kernel.shape[2], groups, -1)
      total += jnp.einsum('nhwgc,cgo->nhwgo', part, weights,
                          preferred_element_type=_accumulator(x)).reshape(*part.shape[:3], -1)
  return total.astype(x.dtype)


def blocks(x: Input, kernel: Kernel, window: Window) -> Output:
  """Joins groups, by zeros in the kernel, into dense convolutions of about 64 channels."""
  groups = window.groups
  height, width, per_group, features = kernel.shape
  joined = max(n for n in range(1, groups + 1)
               if groups % n == 0 and (n == 1 or n * per_group <= _BLOCK_CHANNELS))
  count = groups // joined
  spread = kernel.reshape(height, width, per_group, count, joined, features // groups)
  # [count, kh, kw, group of the input, channel, group of the output, channel], zero between groups.
  spread = jnp.einsum('hwcbgo,Gg->bhwGcgo', spread, jnp.eye(joined, dtype=kernel.dtype))
  spread = spread.reshape(count, height, width, joined * per_group, features // count)
  dense = window._replace(groups=1)
  parts = jnp.split(x, count, axis=-1)
  convolution = LOWERINGS[choose(parts[0].shape, spread.shape[1:], dense)]
  return jnp.concatenate(
      [convolution(part, spread[i], dense) for i, part in enumerate(parts)], axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def split_gradient(x: Input, kernel: Kernel, window: Window) -> Output:
  """Calls XLA's convolution, but computes the kernel's derivative and gradient by `matmul`."""
  return library(x, kernel, window)


@split_gradient.defjvp
def _split_gradient_jvp(window, primals, tangents):
  (x, kernel), (dx, dkernel) = primals, tangents
  return split_gradient(x, kernel, window), (
      library(dx, kernel, window) + matmul(x, dkernel, window))


LOWERINGS: dict[str, Callable[[Any, Any, Window], Any]] = {
    'conv': library, 'matmul': matmul, 'blocks': blocks, 'split_gradient': split_gradient}
Lowering: TypeAlias = Literal['auto', 'conv', 'matmul', 'blocks', 'split_gradient']


def _slices(x, kernel, window):
  """Yields ((i, j), the slice of the padded input that kernel[i, j] meets)."""
  out = window.output_size(x.shape[1:3], kernel.shape[:2])
  (sh, sw), (dh, dw) = window.strides, window.dilation
  x = lax.pad(x, jnp.zeros((), x.dtype),
              ((0, 0, 0), *((*p, 0) for p in window.padding), (0, 0, 0)))
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      yield (i, j), x[:, dh * i:dh * i + (out[0] - 1) * sh + 1:sh,
                      dw * j:dw * j + (out[1] - 1) * sw + 1:sw]


def _product(x, weights):
  # Two dimensions: einsum over four makes XLA:CPU copy the transposed input for the gradient.
  flat = lax.dot_general(x.reshape(-1, x.shape[-1]), weights, (((1,), (0,)), ((), ())),
                         preferred_element_type=_accumulator(x))
  return flat.reshape(*x.shape[:-1], weights.shape[-1])


def _accumulator(x):
  return jnp.promote_types(x.dtype, jnp.float32)


# A part of the key of JAX's caches: under another lowering, `jit` traces a function again.
_forced = jax.make_user_context(default_value=None)


@contextlib.contextmanager
def force_lowering(name: Lowering) -> Iterator[None]:
  """Sets the lowering of every `Conv` with `lowering='auto'` that is traced inside.

      with force_lowering('conv'):
        jaxpr = jax.make_jaxpr(apply)(variables, images)

  Use 'conv' where convolutions are counted, so that counts do not depend on the platform, and
  'matmul' where networks are vmapped over their parameters on a CPU. To trace for another platform
  use `fcajax.target`.
  """
  _check(name)
  with _forced(name):
    yield


def forced_lowering() -> str | None:
  """Returns the lowering that `force_lowering` sets, or None outside of it."""
  return _forced.value


def convolve(x: Input, kernel: Kernel, window: Window, lowering: Lowering = 'auto') -> Output:
  """Convolves by the lowering named; 'auto' takes the fastest one for the shapes and the target.

  Raises:
    UserError: an unknown lowering, or one that these groups do not allow.
  """
  _check(lowering)
  if lowering == 'auto':
    lowering = _forced.value or 'auto'
  if lowering == 'auto':
    lowering = choose(x.shape, kernel.shape, window) if is_cpu_only() else 'conv'
  if lowering == 'split_gradient' and window.groups > 1:
    raise UserError(f"lowering='split_gradient' is for groups=1, not {window.groups}; use 'auto'")
  return LOWERINGS[lowering](x, kernel, window)


def choose(x_shape: Sequence[int], kernel_shape: Sequence[int], window: Window) -> str:
  """Returns the fastest lowering for these shapes on a CPU, by `benchmarks/cpu/conv.py`."""
  channels = x_shape[-1]
  if window.groups > 1:
    return 'matmul' if window.groups == channels == kernel_shape[-1] else 'blocks'
  taps = math.prod(kernel_shape[:2])
  outputs = math.prod(window.output_size(x_shape[1:3], kernel_shape[:2]))
  # Where the kernel is larger than the map, XLA swaps the two, forward or in a gradient, and then
  # computes in scalar loops: 3x3 over 2x2 maps of 512 channels takes 70 times longer.
  if taps == 1 or taps > min(outputs, math.prod(x_shape[1:3])):
    return 'matmul'
  return 'split_gradient' if channels >= 128 and outputs >= 400 else 'conv'


def _check(name):
  if name != 'auto' and name not in LOWERINGS:
    raise UserError(f'lowering={name!r} is not one of '
                     f'{", ".join(map(repr, ["auto", *LOWERINGS]))}')
