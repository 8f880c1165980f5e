"""Multi-spectral channel attention (FcaNet)."""
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.attention.excite import apply_gate, excite, floating, torch_init
from fcajax.layers.streams import init_keys
from fcajax.ops.dct import (
  GRID,
  check_split,
  drawn_basis,
  multispectral_basis,
  multispectral_factors,
)
from fcajax.ops.pooling import adaptive_average_pool, adaptive_pooling_matrix
from fcajax.selection.frequencies import frequency_indices
from fcajax.typing import AnyArray, Array, Float


class MultiSpectralAttention(nn.Module):
  """Multi-spectral channel attention of FcaNet.

      y = x * sigmoid(W2 relu(W1 z)),  z_c = sum over i, j of x[i, j, c] B[i, j, c]

  B holds one two-dimensional DCT filter per channel; channel group g (contiguous, C / k wide)
  has frequency g. B is a constant: no parameter, and in no checkpoint. The squeeze and the gate
  are float32 whatever the compute dtype. The gate is sown as 'gate' `[N, C]` into the collection
  'intermediates'.

  Attributes:
    reduction: W1 has `C // reduction` rows.
    divisor: that width is rounded to the nearest multiple of `divisor`, at least one of them.
    use_bias: biases in W1 and W2.
    dtype: of the result; None is that of the input.
    frequencies: as `fcajax.selection.frequencies.frequency_indices` takes them, by index in a
      7 x 7 grid: 'top16', 'low8', 'bot4', 'all', pairs (u, v), or a search result. At another size
      a grid index u becomes the frequency round(u * size / 7).
    dct_size: `(h, w)` or an int: the squeeze sees the input averaged to this size, by PyTorch's
      adaptive bins. None: the filters have the input's own size.
    normalization: 'ortho', filters of unit norm as published, or 'mean', those divided by
      sqrt(h w), so that frequency (0, 0) is the average: `frequencies='top1'` then equals
      `SqueezeExcite` (the paper's theorem 1).
    basis: 'dct', or for ablations 'random' (uniform in [0, 1)) and 'orthogonal' (those made
      orthogonal by Gram-Schmidt, within blocks of h * w channels), one filter per channel, of unit
      norm; both ignore `frequencies`.
    learnable: the filters are the parameter `basis` `[h, w, C]`, starting from `basis`.
    seed: draws the random and the orthogonal filters; layers of one shape share them.
    grid: the grid that `frequencies` indexes.
    allow_smaller: allow an input smaller than `dct_size`. Pooling it up repeats values, and the
      filters are no longer independent; the original does so silently, here it is an error
      otherwise.

  A caller may replace the filters without parameters: a variable `basis` `[h, w, C]` or `[h, w, k]`
  (k contiguous groups), traced or not, in the collection 'dct' at the module's path is used in
  place of everything above but `normalization`; see `basis_collection`.

  Parameters: as of `SqueezeExcite`, and `basis` with `learnable`.

  Source: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021: equation 7 is the
  basis, equations 11 to 13 are the layer. `basis='orthogonal'`: Salman et al., "OrthoNets", 2023.
  """
  reduction: int = 16
  divisor: int = 1
  use_bias: bool = False
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32
  kernel_init: Initializer = torch_init
  frequencies: Any = 'top16'
  dct_size: Any = None
  normalization: Literal['ortho', 'mean'] = 'ortho'
  basis: Literal['dct', 'random', 'orthogonal'] = 'dct'
  learnable: bool = False
  seed: int = 0
  grid: tuple[int, int] = GRID
  allow_smaller: bool = False

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '*n h w c'], train: bool = False) -> Float[Array, '*n h w c']:
    del train
    x = floating(x, self.dtype, type(self).__name__)
    try:
      squeezed = self.squeeze(x)
    except UserError as error:
      if not self.path:
        raise
      # Stages differ in size, so the user needs to know which one does not fit.
      raise UserError(f'{"/".join(self.path)}: {error}') from error
    logits = excite(squeezed, self.reduction, self.divisor, self.use_bias, self.param_dtype,
                    self.kernel_init)
    return apply_gate(self, x, logits)

  def filter_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the filters' (height, width) for an input `[..., H, W, C]` of that shape.

    Raises:
      UserError: `dct_size` is no size, or the input is smaller than it.
    """
    height, width = shape[-3:-1]
    if self.dct_size is None:
      return height, width
    size = (self.dct_size,) * 2 if isinstance(self.dct_size, int) else tuple(self.dct_size)
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
      raise UserError(f'dct_size={self.dct_size!r} must be None, a positive int or a pair (h, w)')
    if (height < size[0] or width < size[1]) and not self.allow_smaller:
      raise UserError(
          f'the input is {height} x {width}, smaller than dct_size={size[0]} x {size[1]}: use '
          'larger images, dct_size=None with frequencies that fit, a smaller dct_size, or '
          'allow_smaller=True to enlarge it as the original does')
    return size

  def squeeze(self, x: Float[AnyArray, '*n h w c']) -> Float[Array, '*n c']:
    """Returns the sum of each channel, weighted by its filter, in float32."""
    if self.basis not in ('dct', 'random', 'orthogonal'):
      raise UserError(f"basis={self.basis!r} is not one of 'dct', 'random', 'orthogonal'")
    if self.has_variable('dct', 'basis'):
      return self._squeeze_with(x, self.get_variable('dct', 'basis'))
    size = self.filter_size(x.shape)
    if self.learnable:
      return self._squeeze_with(x, self._learned_basis(*size, x.shape[-1]))
    if self.basis != 'dct':
      return self._squeeze_with(x, drawn_basis(*size, x.shape[-1], self.basis, self.seed))
    return self._squeeze_separable(x, size)

  def _scale(self, size):
    """The divisor of each of the two separable factors."""
    if self.normalization not in ('ortho', 'mean'):
      raise UserError(f"normalization={self.normalization!r} is neither 'ortho' nor 'mean'")
    return [math.sqrt(n) if self.normalization == 'mean' else 1.0 for n in size]

  def _squeeze_separable(self, x, size):
    # sum_ij B[i, j] (P_h x P_w^T)[i, j] = sum_ij x[i, j] (P_h^T B P_w)[i, j]: pooling is linear, so
    # it moves into the filters, and a detection-size input costs one pass and no copy. The filters
    # stay factored until XLA fuses their product into that pass, so no [H, W, C] constant exists.
    indices = frequency_indices(self.frequencies, self.grid)
    check_split(x.shape[-1], len(indices))
    factors = multispectral_factors(*size, indices, self.grid)
    rows, columns = (
        np.repeat((adaptive_pooling_matrix(n, m).T @ factor / scale).astype(np.float32),
                  x.shape[-1] // len(indices), axis=1)
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
        raise UserError(
            f'the learned basis is {learned[0]} x {learned[1]} x {learned[2]}, the input calls for '
            f'{height} x {width} x {channels}; set dct_size=({learned[0]}, {learned[1]}) to pool '
            'other sizes to it')

    def start(key, shape, dtype):
      del key, shape
      if self.basis == 'dct':
        indices = frequency_indices(self.frequencies, self.grid)
        return jnp.asarray(multispectral_basis(height, width, indices, channels, self.grid), dtype)
      return jnp.asarray(drawn_basis(height, width, channels, self.basis, self.seed), dtype)
    return self.param('basis', start, shape, self.param_dtype)


def _weighted_sum(x, filters):
  # A multiply and a sum, not a matrix product: XLA fuses them into one pass over x in full float32
  # (no TF32), near the cost of an average; a batched product is several times slower on a CPU.
  with jax.named_scope('dct'):
    return jnp.sum(x.astype(jnp.float32) * filters, axis=(-3, -2))


def basis_collection(model: nn.Module, frequencies: Any, *args: Any, **kwargs: Any) -> dict:
  """Returns the filters of every `MultiSpectralAttention` in a network, to pass or to vmap over.

      sets = [basis_collection(model, [f], images, train=False) for f in candidates]
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
      jax.vmap(lambda dct: model.apply({**variables, 'dct': dct}, images, train=False))(stacked)

  Args:
    model: any Linen module with such layers.
    frequencies: as `frequency_indices` takes them, for all of the layers; each layer has its grid.
    *args, **kwargs: of the model's call, arrays or `jax.ShapeDtypeStruct`s; only shapes are used.

  Returns:
    The collection 'dct': nested dict of paths, at each layer `{'basis': [h, w, C] float32}`.

  Raises:
    UserError: no such layer, or frequencies that a layer's size or channels do not hold.
  """
  found = {}

  def record(call, call_args, call_kwargs, context):
    layer = context.module
    if not isinstance(layer, MultiSpectralAttention) or context.method_name != '__call__':
      return call(*call_args, **call_kwargs)
    x = call_args[0]
    try:
      basis = multispectral_basis(*layer.filter_size(x.shape),
                                  frequency_indices(frequencies, layer.grid), x.shape[-1],
                                  layer.grid)
    except UserError as error:
      raise UserError(f'{"/".join(layer.path)}: {error}') from error
    found[(*layer.path, 'basis')] = basis
    return x

  arrays = [arg for arg in args if hasattr(arg, 'shape')]
  if len(arrays) != len(args):
    raise UserError('positional arguments of the model must be arrays; pass the rest by name')
  key = jax.random.key(0)
  with nn.intercept_methods(record):
    jax.eval_shape(lambda *a: model.init(init_keys(key), *a,
                                         **kwargs), *args)
  if not found:
    raise UserError(f'{type(model).__name__} has no MultiSpectralAttention layer; build it with '
                    "attention='fca'")
  return unflatten_dict(found)
