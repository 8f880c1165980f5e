"""Real two-dimensional Fourier transforms of `[..., H, W, C]`, without complex arrays outside."""
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.ops.fourier_table import TABLE
from fcajax.ops.target import targets
from fcajax.typing import AnyArray, Array, Float

Implementation: TypeAlias = Literal['fft', 'dft', 'auto']
Norm: TypeAlias = Literal['ortho', 'backward', 'forward']
IMPLEMENTATIONS = get_args(Implementation)
_NORMS = get_args(Norm)
_HIGHEST = jax.lax.Precision.HIGHEST


def rfft2(
    x: Float[AnyArray, '...'], norm: Norm = 'ortho', implementation: Implementation = 'auto',
    precision: jax.lax.PrecisionLike = _HIGHEST,
) -> tuple[Float[Array, '*n h half_w c'], Float[Array, '*n h half_w c']]:
  """Computes the discrete Fourier transform of a real array `[..., H, W, C]` over H and W.

      X[k, l] = s sum_{h, w} x[h, w] exp(-2 pi i (k h / H + l w / W)),   l = 0, ..., W // 2

  with s = 1 / sqrt(H W) for 'ortho', 1 for 'backward', 1 / (H W) for 'forward': NumPy's `rfft2`.

  Args:
    implementation: 'fft' (`jax.numpy.fft`, in float32 for anything narrower), 'dft' (products
      with cosine and sine matrices, in the dtype of `x` with float32 accumulation), or 'auto'
      (see `choose`).
    precision: of the 'dft' products of float32 arrays. The default keeps full float32 on devices
      that would otherwise round to TF32 or bfloat16.

  Returns:
    (real, imaginary), each `[..., H, W // 2 + 1, C]`, float32 (float64 where `x` is).

  Raises:
    TypeError: `x` is complex or integer.
    UserError: fewer than three axes, an empty map, an unknown norm or implementation.
  """
  _check(x, norm)
  height, width = x.shape[-3:-1]
  with jax.named_scope('fourier_transform'):
    if choose(implementation, height, width, x.dtype) == 'fft':
      spectrum = jnp.fft.rfft2(x.astype(_wide(x.dtype)), axes=(-3, -2), norm=norm)
      return jnp.real(spectrum), jnp.imag(spectrum)
    rows, columns = _forward_matrices(height, width, norm, x.dtype.name)
    y = _product('plw,...hwc->...phlc', columns, x, precision).astype(x.dtype)
    y = _product('qkph,...phlc->...qklc', rows, y, precision)
    return y[..., 0, :, :, :], y[..., 1, :, :, :]


def irfft2(
    spectrum: Sequence[Float[AnyArray, '...']], shape: Sequence[int], norm: Norm = 'ortho',
    implementation: Implementation = 'auto', precision: jax.lax.PrecisionLike = _HIGHEST,
) -> Float[Array, '*n h w c']:
  """Computes the inverse of `rfft2`, defined for every spectrum as NumPy's `irfft2` defines it.

  A complex inverse over H comes first, then a real one over W:

      Z[h, l] = sum_k X[k, l] exp(2 pi i k h / H)
      x[h, w] = s sum_l a_l (Re Z[h, l] cos(2 pi l w / W) - Im Z[h, l] sin(2 pi l w / W))

  with a = 1, 2, ..., 2, and for even W a last 1. The imaginary part of Z at l = 0 and l = W / 2
  has no effect: only the Hermitian part (X[k] + conj X[-k]) / 2 of those columns of X counts. A
  spectrum that was changed in between, for example by a ReLU, usually has another part as well.

  Args:
    spectrum: (real, imaginary), each `[..., H, W // 2 + 1, C]`.
    shape: (H, W) of the result.
    norm, implementation, precision: as for `rfft2`.

  Returns:
    `[..., H, W, C]`, float32 (float64 where the spectrum is).

  Raises:
    TypeError: a half is complex or integer.
    UserError: the halves differ in shape or do not belong to `shape`; as for `rfft2`.
  """
  real, imaginary = spectrum
  height, width = shape
  for half in (real, imaginary):
    _check(half, norm)
    if half.shape != real.shape or half.shape[-3:-1] != (height, width // 2 + 1):
      raise UserError(
          f'a spectrum of shapes {real.shape} and {imaginary.shape} does not belong to maps of '
          f'{height} x {width}; both halves must be [..., {height}, {width // 2 + 1}, C]')
  dtype = jnp.promote_types(real.dtype, imaginary.dtype)
  with jax.named_scope('fourier_transform'):
    if choose(implementation, height, width, dtype) == 'fft':
      real, imaginary = real.astype(_wide(dtype)), imaginary.astype(_wide(dtype))
      # Multi-dimensional complex-to-real transforms may complete other spectra as they like.
      real, imaginary = _hermitian_edges(real, imaginary, width)
      return jnp.fft.irfft2(
          jax.lax.complex(real, imaginary), s=(height, width), axes=(-3, -2), norm=norm)
    rows, columns = _inverse_matrices(height, width, norm, dtype.name)
    z = jnp.stack([real, imaginary], axis=-4).astype(dtype)
    z = _product('qhpk,...pklc->...qhlc', rows, z, precision).astype(dtype)
    return _product('qlw,...qhlc->...hwc', columns, z, precision)


def choose(
    implementation: Implementation, height: int, width: int, dtype: jnp.dtype | type = jnp.float32,
) -> Literal['fft', 'dft']:
  """Returns the implementation that a request means for maps of `height` x `width`.

  'auto' takes what `fcajax.ops.fourier_table` says for the platform (`fcajax.target`). A measured
  platform takes what was faster at the measured size nearest to sqrt(height * width), in the ratio
  of sizes. A platform that was not measured takes 'dft' up to its `dft_up_to` and 'fft' beyond. A
  platform that is not in the table takes 'dft', which needs no complex numbers. For several
  platforms it is 'fft' only if each of them takes it.

  Raises:
    UserError: `implementation` is not 'fft', 'dft' or 'auto'.
  """
  if implementation not in IMPLEMENTATIONS:
    raise UserError(f"implementation={implementation!r} is not one of 'fft', 'dft', 'auto'")
  if implementation != 'auto':
    return implementation
  wanted = {_fastest(TABLE.get(platform), height, width, dtype) for platform in targets()}
  return 'fft' if wanted == {'fft'} else 'dft'


def _fastest(entry, height, width, dtype):
  """The implementation that an entry of the table names for this size."""
  if entry is None:
    return 'dft'
  size = math.sqrt(height * width)
  if 'dft_up_to' in entry:
    return 'dft' if size <= entry['dft_up_to'] else 'fft'
  measured = entry['float32' if jnp.finfo(dtype).bits >= 32 else 'bfloat16']
  _, fft_ms, dft_ms = min(measured, key=lambda row: abs(math.log(row[0] / size)))
  return 'dft' if dft_ms < fft_ms else 'fft'


def implementation_for(
    parallelism: str, implementation: Implementation = 'auto') -> Implementation:
  """Returns the implementation to use in a train step that runs under `parallelism`.

  On jax < 0.12 a batch-sharded FFT under plain `jit` is computed by gathering the whole batch on
  every device, so 'jit' uses 'dft' there, with a warning if 'fft' was asked for by name. Under
  'shard_map' and 'pmap' every device transforms its own images, and nothing changes.

  Raises:
    UserError: `implementation` is not 'fft', 'dft' or 'auto'.
  """
  if implementation not in IMPLEMENTATIONS:
    raise UserError(
        f"fourier_implementation={implementation!r} is not one of 'fft', 'dft', 'auto'")
  if parallelism != 'jit' or jax.__version_info__ >= (0, 12) or implementation == 'dft':
    return implementation
  if implementation == 'fft':
    warnings.warn(
        f"parallelism='jit' with fourier_implementation='fft' gathers the whole batch on every "
        f"device in jax {jax.__version__}; using 'dft'. Use parallelism='shard_map' or jax >= 0.12 "
        "to keep 'fft'.", UserWarning, stacklevel=2)
  return 'dft'


def _check(x, norm):
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f'a Fourier transform of {x.dtype} values; cast them to float32 or bfloat16 '
                    '(a complex spectrum is passed as a pair of real arrays)')
  if x.ndim < 3 or 0 in x.shape[-3:-1]:
    raise UserError(f'shape {x.shape} is not [..., H, W, C] with H and W at least 1')
  if norm not in _NORMS:
    raise UserError(f"norm={norm!r} is not one of 'ortho', 'backward', 'forward'")


def _wide(dtype):
  return jnp.promote_types(dtype, jnp.float32)


def _product(subscripts, matrix, x, precision):
  wide = _wide(x.dtype)
  return jnp.einsum(subscripts, matrix, x, precision=precision if x.dtype == wide else None,
                    preferred_element_type=wide)


def _scale(size, norm, inverse):
  power = {'ortho': -0.5, 'backward': -1.0 if inverse else 0.0,
           'forward': 0.0 if inverse else -1.0}[norm]
  return float(size)**power


def _waves(frequencies, size):
  """cos and sin of 2 pi k n / size; the product is reduced first, so that large ones stay exact."""
  angle = 2 * np.pi * (np.outer(np.arange(frequencies), np.arange(size)) % size) / size
  return np.cos(angle), np.sin(angle)


@functools.lru_cache(maxsize=256)
def _forward_matrices(height, width, norm, dtype):
  """H: `[2, H, 2, H]` (part out, k, part in, h); W: `[2, W // 2 + 1, W]` (part, l, w)."""
  cos, sin = _waves(width // 2 + 1, width)
  columns = np.stack([cos, -sin]) * _scale(width, norm, inverse=False)
  cos, sin = _waves(height, height)
  rows = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)])
  rows = rows * _scale(height, norm, inverse=False)
  return rows.astype(jnp.dtype(dtype)), columns.astype(jnp.dtype(dtype))


@functools.lru_cache(maxsize=256)
def _inverse_matrices(height, width, norm, dtype):
  """H: `[2, H, 2, H]` (part out, h, part in, k); W: `[2, W // 2 + 1, W]`, weights folded in."""
  weight = np.full((width // 2 + 1, 1), 2.0)
  weight[0] = 1
  if width % 2 == 0:
    weight[-1] = 1
  cos, sin = _waves(width // 2 + 1, width)
  columns = np.stack([cos, -sin]) * weight * _scale(width, norm, inverse=True)
  cos, sin = _waves(height, height)
  rows = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)])
  rows = rows * _scale(height, norm, inverse=True)
  return rows.astype(jnp.dtype(dtype)), columns.astype(jnp.dtype(dtype))


def _hermitian_edges(real, imaginary, width):
  """The Hermitian part of the columns l = 0 and, for even W, l = W / 2; the others as they are."""
  def mirrored(column):  # index -k modulo H
    return jnp.roll(jnp.flip(column, axis=-3), 1, axis=-3)

  def hermitian(real, imaginary):
    return (real + mirrored(real)) / 2, (imaginary - mirrored(imaginary)) / 2

  last = real.shape[-2] - (1 if width % 2 == 0 else 0)
  parts = [hermitian(real[..., :1, :], imaginary[..., :1, :])]
  if last > 1:
    parts.append((real[..., 1:last, :], imaginary[..., 1:last, :]))
  if width % 2 == 0:
    parts.append(hermitian(real[..., -1:, :], imaginary[..., -1:, :]))
  real, imaginary = zip(*parts)
  return jnp.concatenate(real, axis=-2), jnp.concatenate(imaginary, axis=-2)
