"""Channel attention: squeeze-and-excitation, multi-spectral (FcaNet), ECA, and names for all."""
import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jax import lax

from fcajax.layers.cbam import ConvolutionalBlockAttention
from fcajax.layers.excite import excite, floating, global_average, torch_init
from fcajax.layers.global_context import GlobalContext
from fcajax.ops.dct import (
    GRID,
    check_split,
    multispectral_basis,
    multispectral_factors,
)
from fcajax.ops.drawn import drawn_basis
from fcajax.ops.pooling import adaptive_average_pool, adaptive_pooling_matrix


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation, `[N, H, W, C] -> [N, H, W, C]`.

      y = x * sigmoid(W2 relu(W1 z)),  z = mean of x over H and W

  The gate is computed in float32 whatever the compute dtype, and is sown as 'gate' `[N, C]` in
  the collection 'intermediates'.

  Args:
    reduction: W1 has `C // reduction` rows.
    divisor: that width is rounded to the nearest multiple of `divisor`, at least one of them
      (8 in timm).
    use_bias: biases in W1 and W2; FcaNet's baseline has none, timm's has.
    dtype: of the result; None is the input's.

  Parameters: `reduce/kernel` `[C, C/r]`, `expand/kernel` `[C/r, C]` (PyTorch's `fc.0.weight` and
  `fc.2.weight` transposed), and `bias` beside them with `use_bias`.

  Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equations 2 to 4.
  """
  reduction: int = 16
  divisor: int = 1
  use_bias: bool = False
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable = torch_init

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = floating(x, self.dtype, type(self).__name__)
    logits = excite(self.squeeze(x), self.reduction, self.divisor, self.use_bias,
                    self.param_dtype, self.kernel_init)
    gate = nn.sigmoid(logits)
    self.sow('intermediates', 'gate', gate)
    return x * gate[..., None, None, :].astype(x.dtype)

  def squeeze(self, x):
    """`[N, H, W, C] -> [N, C]` in float32."""
    return global_average(x)


class MultiSpectralAttention(SqueezeExcite):
  """Multi-spectral channel attention of FcaNet, `[N, H, W, C] -> [N, H, W, C]`.

      y = x * sigmoid(W2 relu(W1 z)),  z_c = sum over i, j of x[i, j, c] B[i, j, c]

  B holds one two-dimensional DCT filter per channel; channel group g (contiguous, C / k wide)
  carries frequency g. It is a constant: no parameter, and in no checkpoint. The squeeze and the
  gate are float32 whatever the compute dtype.

  Args (beside `SqueezeExcite`'s):
    frequencies: what `fcajax.ops.dct.frequency_indices` takes, by index in a 7 x 7 grid: 'top16',
      'low8', 'bot4', 'all', pairs (u, v), or a search result. At another size a grid index u
      becomes the frequency round(u * size / 7).
    dct_size: `(h, w)` or an int: the squeeze sees the input averaged to this size, by PyTorch's
      adaptive bins. None: the filters have the input's own size.
    normalization: 'ortho', filters of unit norm as published, or 'mean', those divided by
      sqrt(h w), so that frequency (0, 0) is the average: `frequencies='top1'` then equals
      `SqueezeExcite` (the paper's theorem 1).
    basis: 'dct', or for ablations 'random' (uniform in [0, 1)) and 'orthogonal' (those made
      orthogonal by Gram-Schmidt, within blocks of h * w channels), one filter per channel, of unit
      norm; they ignore `frequencies`.
    learnable: the filters are the parameter `basis` `[h, w, C]`, starting from `basis`.
    seed: draws the random and the orthogonal filters; layers of one shape share them.
    grid: the grid that `frequencies` indexes.
    allow_smaller: an input smaller than `dct_size` is an error unless this is True, since pooling
      it repeats values and the filters are no longer independent. (The original does so silently.)

  A caller may replace the filters, traced or not, without parameters: a variable `basis`
  `[h, w, C]` or `[h, w, k]` (k contiguous groups) in the collection 'dct', at the module's path,
  is used in place of everything above but `normalization`; see `basis_collection`.

  Source: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021, equations 7 to
  10; `basis='orthogonal'`: Salman et al., "OrthoNets", 2023.
  """
  frequencies: Any = 'top16'
  dct_size: int | tuple[int, int] | None = None
  normalization: str = 'ortho'
  basis: str = 'dct'
  learnable: bool = False
  seed: int = 0
  grid: tuple[int, int] = GRID
  allow_smaller: bool = False

  def squeeze(self, x):
    try:
      return self._squeeze(x)
    except ValueError as error:
      if not self.path:
        raise
      # Stages differ in size, so the user needs to know which one does not fit.
      raise ValueError(f'{"/".join(self.path)}: {error}') from error

  def _squeeze(self, x):
    if self.basis not in ('dct', 'random', 'orthogonal'):
      raise ValueError(f"basis={self.basis!r} is not one of 'dct', 'random', 'orthogonal'")
    if self.has_variable('dct', 'basis'):
      return self._squeeze_with(x, self.get_variable('dct', 'basis'))
    size = self.filter_size(x.shape)
    if self.learnable:
      return self._squeeze_with(x, self._learned_basis(*size, x.shape[-1]))
    if self.basis != 'dct':
      return self._squeeze_with(x, drawn_basis(*size, x.shape[-1], self.basis, self.seed))
    return self._squeeze_separable(x, size)

  def filter_size(self, shape):
    """The filters' `(h, w)` for an input `[..., H, W, C]` of that shape."""
    height, width = shape[-3:-1]
    if self.dct_size is None:
      return height, width
    size = (self.dct_size,) * 2 if isinstance(self.dct_size, int) else tuple(self.dct_size)
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
      raise ValueError(f'dct_size={self.dct_size!r} must be None, a positive int or a pair (h, w)')
    if (height < size[0] or width < size[1]) and not self.allow_smaller:
      raise ValueError(
          f'the input is {height} x {width}, smaller than dct_size={size[0]} x {size[1]}: use '
          'larger images, dct_size=None with frequencies that fit, a smaller dct_size, or '
          'allow_smaller=True to enlarge it as the original does')
    return size

  def _scale(self, size):
    """What each of the two separable factors is divided by."""
    if self.normalization not in ('ortho', 'mean'):
      raise ValueError(f"normalization={self.normalization!r} is neither 'ortho' nor 'mean'")
    return [math.sqrt(n) if self.normalization == 'mean' else 1.0 for n in size]

  def _squeeze_separable(self, x, size):
    # sum_ij B[i, j] (P_h x P_w^T)[i, j] = sum_ij x[i, j] (P_h^T B P_w)[i, j]: pooling is linear, so
    # it moves into the filters, and a detection-size input costs one pass and no copy. The filters
    # stay factored until XLA fuses their product into that pass, so no [H, W, C] constant exists.
    factors = multispectral_factors(*size, self.frequencies, self.grid)
    count = factors[0].shape[1]
    check_split(x.shape[-1], count)
    rows, columns = (
        np.repeat((adaptive_pooling_matrix(n, m).T @ factor / scale).astype(np.float32),
                  x.shape[-1] // count, axis=1)
        for factor, n, m, scale in zip(factors, x.shape[-3:-1], size, self._scale(size)))
    filters = rows[:, None] * jnp.asarray(columns)
    return _weighted_sum(x, filters)

  def _squeeze_with(self, x, filters):
    """The sum with filters `[h, w, C]` or `[h, w, k]` of any kind, pooling to their size."""
    size, channels = filters.shape[:2], x.shape[-1]
    check_split(channels, filters.shape[2])
    filters = filters.astype(jnp.float32) / math.prod(self._scale(size))
    if filters.shape[2] != channels:
      filters = jnp.repeat(filters, channels // filters.shape[2], axis=2)
    x = x.astype(jnp.float32)
    if x.shape[-3:-1] != size:
      with jax.named_scope('pool'):
        x = adaptive_average_pool(x, size)
    return _weighted_sum(x, filters)

  def _learned_basis(self, height, width, channels):
    shape = (height, width, channels)
    if self.has_variable('params', 'basis'):
      learned = self.get_variable('params', 'basis').shape
      if learned != shape:
        raise ValueError(
            f'the learned basis is {learned[0]} x {learned[1]} x {learned[2]}, the input calls for '
            f'{height} x {width} x {channels}; set dct_size=({learned[0]}, {learned[1]}) to pool '
            'other sizes to it')

    def start(key, shape, dtype):
      del key, shape
      if self.basis == 'dct':
        return jnp.asarray(
            multispectral_basis(height, width, self.frequencies, channels, self.grid), dtype)
      return jnp.asarray(drawn_basis(height, width, channels, self.basis, self.seed), dtype)
    return self.param('basis', start, shape, self.param_dtype)


def _weighted_sum(x, filters):
  # A multiply and a sum, not a matrix product: XLA fuses them into one pass over x in full float32
  # (no TF32), near the cost of an average; a batched product is several times slower on a CPU.
  with jax.named_scope('dct'):
    return jnp.sum(x.astype(jnp.float32) * filters, axis=(-3, -2))


def basis_collection(model, frequencies, *args, **kwargs):
  """The filters of every `MultiSpectralAttention` in a network, to be passed or vmapped over.

      sets = [basis_collection(model, [f], images, train=False) for f in candidates]
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
      jax.vmap(lambda dct: model.apply({**variables, 'dct': dct}, images, train=False))(stacked)

  Args:
    model: any Linen module with such layers.
    frequencies: what `frequency_indices` takes, for all of the layers; index grids are theirs.
    *args, **kwargs: of the model's call, arrays or `jax.ShapeDtypeStruct`s; only shapes are used.

  Returns:
    The collection 'dct': nested dict of paths, at each layer `{'basis': [h, w, C] float32}`.

  Raises:
    ValueError: no such layer, or frequencies that a layer's size or channels do not hold.
  """
  found = {}

  def record(call, call_args, call_kwargs, context):
    layer = context.module
    if not isinstance(layer, MultiSpectralAttention) or context.method_name != '__call__':
      return call(*call_args, **call_kwargs)
    x = call_args[0]
    try:
      basis = multispectral_basis(
          *layer.filter_size(x.shape), frequencies, x.shape[-1], layer.grid)
    except ValueError as error:
      raise ValueError(f'{"/".join(layer.path)}: {error}') from error
    found[(*layer.path, 'basis')] = basis
    return x

  arrays = [arg for arg in args if hasattr(arg, 'shape')]
  if len(arrays) != len(args):
    raise ValueError('positional arguments of the model must be arrays; pass the rest by name')
  key = jax.random.key(0)
  with nn.intercept_methods(record):
    jax.eval_shape(lambda *a: model.init(dict.fromkeys(('params', 'dropout', 'gate'), key), *a,
                                         **kwargs), *args)
  if not found:
    raise ValueError(f'{type(model).__name__} has no MultiSpectralAttention layer; build it with '
                     "attention='fca'")
  return unflatten_dict(found)


class EfficientChannelAttention(nn.Module):
  """Efficient channel attention, `[N, H, W, C] -> [N, H, W, C]`.

      y = x * sigmoid(conv_k(z)),  z = mean of x over H and W

  conv_k is one filter of k taps along the channels, zero padded, in float32. The gate is sown as
  'gate' `[N, C]` in the collection 'intermediates'.

  Args:
    kernel_size: k, odd; None: |log2(C) / gamma + b / gamma| cut to an integer, and the next odd
      one where that is even.
    gamma, b: of that rule.
    dtype: of the result; None is the input's.

  Parameters: `conv/kernel` `[k, 1, 1]` (PyTorch's `conv.weight` `[1, 1, k]` transposed).

  Source: Wang et al., "ECA-Net", CVPR 2020, equations 9 and 12.
  """
  kernel_size: int | None = None
  gamma: float = 2
  b: float = 1
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = floating(x, self.dtype, type(self).__name__)
    size = self.kernel_size or eca_kernel_size(x.shape[-1], self.gamma, self.b)
    if size % 2 == 0 or size < 1:
      raise ValueError(f'kernel_size={size} must be odd and positive, so that the channel itself '
                       'is in the middle')
    conv = nn.Conv(1, (size,), padding=size // 2, use_bias=False, dtype=jnp.float32,
                   param_dtype=self.param_dtype, precision=lax.Precision.HIGHEST,
                   kernel_init=torch_init, name='conv')
    gate = nn.sigmoid(conv(global_average(x)[..., None])[..., 0])
    self.sow('intermediates', 'gate', gate)
    return x * gate[..., None, None, :].astype(x.dtype)


def eca_kernel_size(channels, gamma=2, b=1):
  """The kernel size that ECA-Net gives `channels` channels (its equation 12)."""
  size = int(abs((math.log2(channels) + b) / gamma))
  return size if size % 2 else size + 1


ATTENTIONS = {
    'se': SqueezeExcite,
    'fca': MultiSpectralAttention,
    'eca': EfficientChannelAttention,
    'cbam': ConvolutionalBlockAttention,
    'gc': GlobalContext,
}


def resolve_attention(spec, options=None):
  """What a backbone calls as `factory(name='attention', dtype=...)` to build its attention.

  Args:
    spec: None or 'none' for no attention, a name of `ATTENTIONS`, or a module class, a partial of
      one, or any callable that returns a module.
    options: fields to set, such as `{'frequencies': 'top8'}`.

  Returns:
    A factory, or None.

  Raises:
    ValueError: an unknown name, or options that are no fields; with what is close to them.
  """
  options = dict(options or {})
  if spec is None or spec == 'none':
    if options:
      raise ValueError(f'no attention was asked for, but it was given the options '
                       f'{sorted(options)}; leave them out, or name an attention')
    return None
  factory = spec
  if isinstance(spec, str):
    if spec not in ATTENTIONS:
      raise ValueError(f'unknown attention {spec!r}; {_near(spec, [*ATTENTIONS, "none"])}')
    factory = ATTENTIONS[spec]
  if not callable(factory) or isinstance(factory, nn.Module):
    raise ValueError(f'attention={spec!r} must be None, a name ({", ".join(ATTENTIONS)}), or a '
                     'module class or callable that builds one')
  allowed = _options_of(factory)
  for option in options:
    if allowed is not None and option not in allowed:
      raise ValueError(f'attention {spec!r} has no option {option!r}; {_near(option, allowed)}')
  return functools.partial(factory, **options) if options else factory


def _options_of(factory):
  """The names that a factory can be given; None where it takes any."""
  base = factory
  while isinstance(base, functools.partial):
    base = base.func
  if dataclasses.is_dataclass(base):
    names = {field.name for field in dataclasses.fields(base) if field.init}
  else:
    parameters = inspect.signature(base).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
      return None
    names = {p.name for p in parameters}
  return sorted(names - {'name', 'parent'})


def _near(name, names):
  close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
  if close:
    return f'did you mean {" or ".join(map(repr, close))}?'
  return f'it takes {", ".join(names)}'
