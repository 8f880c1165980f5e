"""Cosine bases, and the filters of multi-spectral attention made of them."""
import functools
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from fcajax.errors import UserError
from fcajax.typing import Float

GRID = (7, 7)
"""The grid whose index pairs (u, v) name frequencies in FcaNet."""


def dct_basis(
    length: int, frequencies: Iterable[int] | None = None, dtype: type = np.float32,
) -> Float[np.ndarray, 'length k']:
  """Returns orthonormal DCT-II cosines as columns.

      b[i, k] = s_k cos(pi f_k (i + 1/2) / length),  s_k = sqrt(1 / length) if f_k = 0,
                                                           sqrt(2 / length) otherwise

  The array is shared between callers and read-only. It is computed in float64.

  Args:
    length: number of samples.
    frequencies: the f_k, integers in 0..length - 1; None for all of them.
    dtype: of the result.

  Raises:
    UserError: a frequency outside 0..length - 1.
  """
  frequencies = range(length) if frequencies is None else frequencies
  return _dct_basis(int(length), tuple(int(f) for f in frequencies), np.dtype(dtype))


@functools.lru_cache(maxsize=1024)
def _dct_basis(length, frequencies, dtype):
  for f in frequencies:
    if not 0 <= f < length:
      raise UserError(f'frequency {f} does not exist for {length} samples; '
                      f'use 0..{length - 1}')
  f = np.asarray(frequencies, np.float64)
  position = np.arange(length)[:, None] + 0.5
  basis = np.cos(np.pi * f * position / length) * np.sqrt(np.where(f == 0, 1, 2) / length)
  return _read_only(basis.astype(dtype))


def scale_frequency(index: int, size: int, grid_size: int = GRID[0]) -> int:
  """Returns the DCT frequency of a grid index on `size` samples: round(index * size / grid_size).

  This keeps the frequency per pixel. At multiples of `grid_size` it is the published
  `index * (size // grid_size)`. Halves round up.
  """
  return (2 * index * size + grid_size) // (2 * grid_size)


def multispectral_factors(
    height: int, width: int, indices: Iterable[Sequence[int]], grid: Sequence[int] = GRID,
) -> tuple[Float[np.ndarray, 'height k'], Float[np.ndarray, 'width k']]:
  """Returns the separable factors (rows, columns) of the filters of multi-spectral attention.

  Filter k is `rows[:, k, None] * columns[None, :, k]`. The factors are float64, have columns of
  unit norm, are shared between callers and read-only.

  Args:
    height, width: size of the filters.
    indices: pairs (u, v) of `grid`; for names see `fcajax.selection.frequencies`.
    grid: rows and columns of the grid.

  Raises:
    UserError: two filters are equal at this size, or a frequency does not exist at it.
  """
  return _factors(int(height), int(width), _pairs(indices), _pair(grid))


@functools.lru_cache(maxsize=1024)
def _factors(height, width, indices, grid):
  if height < 1 or width < 1:
    raise UserError(f'a filter of {height} x {width} is empty; give positive sizes')
  taken = {}
  for i, (u, v) in enumerate(indices):
    a, b = scale_frequency(u, height, grid[0]), scale_frequency(v, width, grid[1])
    problem = None
    if taken.get((a, b)) == (u, v):
      raise UserError(f'frequency ({u}, {v}) is listed twice; list every frequency once')
    if a >= height or b >= width:
      problem = (f'frequency ({u}, {v}) of the {grid[0]} x {grid[1]} grid becomes ({a}, {b}), but '
                 f'{height} x {width} holds only 0..{height - 1} x 0..{width - 1}')
    elif (a, b) in taken:
      problem = (f'frequencies {taken[a, b]} and ({u}, {v}) of the {grid[0]} x {grid[1]} grid are '
                 f'both ({a}, {b}) at {height} x {width}')
    if problem:
      raise UserError(f'{problem}; use a size of at least {grid[0]} x {grid[1]}, or '
                      + ('lower frequencies' if i == 0 else
                         f'only the first {i} of these {len(indices)} frequencies'))
    taken[a, b] = (u, v)
  rows, columns = zip(*taken)
  return dct_basis(height, rows, np.float64), dct_basis(width, columns, np.float64)


def check_split(channels: int, count: int) -> None:
  """Raises `UserError` unless `channels` splits into `count` equal groups."""
  if channels % count == 0:
    return
  fitting = max(k for k in range(1, count + 1) if channels % k == 0)
  raise UserError(f'channels={channels} does not split into {count} frequencies; use a multiple '
                  f"of {count} channels, or {fitting} frequencies, such as 'top{fitting}'")


def multispectral_basis(
    height: int, width: int, indices: Iterable[Sequence[int]], channels: int,
    grid: Sequence[int] = GRID) -> Float[np.ndarray, 'height width channels']:
  """Returns the filters of multi-spectral channel attention, one for each channel.

      B[i, j, c] = b_u[i] b_v[j],  (u, v) the frequency of channel c's group

  The channels form contiguous groups of `channels / k`; group g has frequency g. `b` are the
  orthonormal cosines of `dct_basis` at the frequencies round(u * height / 7) and
  round(v * width / 7), so every filter has unit norm. The array is float32, shared between callers
  and read-only.

  Args:
    height, width: size of the filters.
    indices: pairs (u, v) of `grid`; for names see `fcajax.selection.frequencies`.
    channels: a multiple of the number of frequencies.
    grid: rows and columns of the grid.

  Raises:
    UserError: channels that do not split, two filters that are equal at this size, or a frequency
      that does not exist at it.

  Source: Qin et al., "FcaNet", ICCV 2021, equation 7, scaled to unit norm.
  """
  return _basis(int(height), int(width), _pairs(indices), int(channels), _pair(grid))


@functools.lru_cache(maxsize=64)
def _basis(height, width, indices, channels, grid):
  check_split(channels, len(indices))
  rows, columns = _factors(height, width, indices, grid)
  filters = (rows[:, None] * columns).astype(np.float32)
  return _read_only(np.repeat(filters, channels // len(indices), axis=2))


@functools.lru_cache(maxsize=64)
def drawn_basis(
    height: int, width: int, channels: int, kind: Literal['random', 'orthogonal'], seed: int,
) -> Float[np.ndarray, 'height width channels']:
  """Draws filters of unit norm, the controls that published ablations compare the DCT with.

  They are drawn with NumPy, so they are the same on every machine and device. The array is
  float32, shared between callers and read-only.

  Args:
    height, width, channels: size and number of the filters.
    kind: 'random', uniform in [0, 1) before scaling (FcaNet's ablation), or 'orthogonal', such
      draws made orthonormal by Gram-Schmidt in blocks of `height * width` channels (OrthoNet).
    seed: of `numpy.random.default_rng`.

  Sources: Qin et al., "FcaNet", 2021; Salman et al., "OrthoNets: Orthogonal Channel Attention
  Networks", 2023.
  """
  generator = np.random.default_rng(seed)
  filters = generator.random((channels, height * width))
  if kind == 'orthogonal':
    blocks = []
    for start in range(0, channels, height * width):
      q, r = np.linalg.qr(filters[start:start + height * width].T)
      blocks.append((q * np.sign(np.diag(r))).T)
    filters = np.concatenate(blocks)
  filters /= np.linalg.norm(filters, axis=1, keepdims=True)
  return _read_only(filters.T.reshape(height, width, channels).astype(np.float32))


def _pairs(indices):
  """The index pairs as nested tuples, which the caches need."""
  return tuple((int(u), int(v)) for u, v in indices)


def _pair(grid):
  rows, columns = grid
  return int(rows), int(columns)


def _read_only(array):
  array.setflags(write=False)
  return array
