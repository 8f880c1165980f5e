"""Cosine bases and sets of frequencies for multi-spectral attention."""
import functools
import json
import pathlib
import re

import numpy as np

from fcajax.ops.frequency_orders import ORDERS

GRID = (7, 7)

_ACCEPTED = ("use 'topK' or 'botK' (K in 1..49), 'lowK' (K in 1..32), 'all', a search result "
             "'FILE.json' or 'FILE.json:topK', or a list of (u, v) pairs")


def dct_basis(length, frequencies=None, dtype=np.float32):
  """Orthonormal DCT-II cosines as columns.

      b[i, k] = s_k cos(pi f_k (i + 1/2) / length),  s_k = sqrt(1 / length) if f_k = 0,
                                                           sqrt(2 / length) otherwise

  Args:
    length: number of samples.
    frequencies: the `f_k`, integers in 0..length - 1; None for all of them.
    dtype: of the result; computed in float64.

  Returns:
    `[length, len(frequencies)]`, read-only: the array is shared between callers.

  Raises:
    ValueError: a frequency outside 0..length - 1.
  """
  frequencies = range(length) if frequencies is None else frequencies
  return _dct_basis(int(length), tuple(int(f) for f in frequencies), np.dtype(dtype))


@functools.lru_cache(maxsize=1024)
def _dct_basis(length, frequencies, dtype):
  for f in frequencies:
    if not 0 <= f < length:
      raise ValueError(f'frequency {f} does not exist for {length} samples; '
                       f'use 0..{length - 1}')
  f = np.asarray(frequencies, np.float64)
  position = np.arange(length)[:, None] + 0.5
  basis = np.cos(np.pi * f * position / length) * np.sqrt(np.where(f == 0, 1, 2) / length)
  return _frozen(basis.astype(dtype))


def frequency_indices(frequencies, grid=GRID):
  """Index pairs (u, v) of a grid, u on height and v on width, from any way to name them.

  Args:
    frequencies: `'top16'`, `'bot4'` (1 to 49 frequencies) or `'low8'` (1 to 32), FcaNet's orders
      on the 7 x 7 grid; `'all'`, the whole grid row by row; the path of a frequency search's
      result, `'runs/search.json'` for the set it selected or `'runs/search.json:top8'` for the
      best 8 of its ranking; or a sequence of pairs.
    grid: `(rows, columns)` of the grid that the pairs index.

  Returns:
    tuple of `(u, v)`.

  Raises:
    ValueError: an unknown name, a file that is missing or no search result, a pair outside the
      grid.
  """
  grid = tuple(int(n) for n in grid)
  if isinstance(frequencies, pathlib.PurePath):
    frequencies = str(frequencies)
  if not isinstance(frequencies, str):
    return _checked_pairs(frequencies, grid, f'frequencies={frequencies!r}')
  if match := re.fullmatch(r'(.*\.json)(?::top(\d+))?', frequencies):
    return _from_search(match[1], match[2], grid)
  if frequencies == 'all':
    return tuple((u, v) for u in range(grid[0]) for v in range(grid[1]))
  match = re.fullmatch(r'(top|bot|low)([1-9]\d*)', frequencies)
  if not match:
    raise ValueError(f'frequencies={frequencies!r} is unknown; {_ACCEPTED}')
  if grid != GRID:
    raise ValueError(f'frequencies={frequencies!r} is published for the 7 x 7 grid, not '
                     f'{grid[0]} x {grid[1]}; give a list of (u, v) pairs')
  order, count = ORDERS[match[1]], int(match[2])
  if count > len(order):
    raise ValueError(f'frequencies={frequencies!r} asks for {count} frequencies, but '
                     f"'{match[1]}' holds {len(order)}; use '{match[1]}{len(order)}' or fewer")
  return order[:count]


def portable_frequencies(frequencies, grid=GRID):
  """What to store with a network: a search's file as the pairs it names, all else as it is.

  Args:
    frequencies, grid: as `frequency_indices` takes them.
  """
  if isinstance(frequencies, str | pathlib.PurePath) and '.json' in str(frequencies):
    return frequency_indices(frequencies, grid)
  return frequencies


def _checked_pairs(pairs, grid, name):
  try:
    pairs = tuple(pairs)
    result = tuple((int(u), int(v)) for u, v in pairs)
    whole = all(u == a and v == b for (u, v), (a, b) in zip(result, pairs))
  except (TypeError, ValueError):
    whole = False
  if not whole or not result:
    raise ValueError(f'{name} is no list of (u, v) index pairs; {_ACCEPTED}')
  for u, v in result:
    if not (0 <= u < grid[0] and 0 <= v < grid[1]):
      raise ValueError(f'{name}: ({u}, {v}) lies outside the {grid[0]} x {grid[1]} grid; '
                       f'u is in 0..{grid[0] - 1} and v in 0..{grid[1] - 1}')
  return result


def _from_search(path, top, grid):
  """The selected set, or the best `top`, of a frequency search's result file."""
  try:
    content = json.loads(pathlib.Path(path).read_text())
  except OSError as error:
    raise ValueError(f'cannot read the frequency file {path}: {error.strerror}; '
                     f'{_ACCEPTED}') from error
  except ValueError as error:
    raise ValueError(f'{path} is no JSON ({error}); give the search.json that a frequency search '
                     'wrote') from error
  key = 'selected' if top is None else 'ranked'
  if not isinstance(content, dict) or key not in content or 'grid' not in content:
    raise ValueError(f"{path} is no search result: it needs the keys 'grid' and '{key}'; give "
                     'the search.json that a frequency search wrote')
  if content['grid'] != list(grid):
    raise ValueError(f"{path} was searched on the grid {content['grid']}, but the layer's grid is "
                     f'{list(grid)}; use the same grid')
  pairs = _checked_pairs(content[key], grid, f"'{key}' of {path}")
  if top is None:
    return pairs
  if not 1 <= int(top) <= len(pairs):
    raise ValueError(f"'{path}:top{top}' asks for {top} frequencies, but {path} ranks "
                     f'{len(pairs)}; use top1 to top{len(pairs)}')
  return pairs[:int(top)]


def scale_frequency(index, size, grid_size=GRID[0]):
  """The DCT frequency of grid index `index` on `size` samples: round(index * size / grid_size).

  It keeps the frequency per pixel. At multiples of `grid_size` it is the published
  `index * (size // grid_size)`. Halves round up.
  """
  return (2 * index * size + grid_size) // (2 * grid_size)


def multispectral_factors(height, width, frequencies, grid=GRID):
  """The separable parts of the filters: filter k is `rows[:, k]` times `columns[:, k]`.

  Args:
    height, width: size of the filters.
    frequencies: as `frequency_indices` takes them.
    grid: as `frequency_indices` takes it.

  Returns:
    `(rows, columns)`: `[height, k]` and `[width, k]`, float64, read-only, columns of unit norm.

  Raises:
    ValueError: two of the filters are equal at this size, or a frequency is beyond it.
  """
  grid = tuple(int(n) for n in grid)
  return _factors(int(height), int(width), frequency_indices(frequencies, grid), grid)


@functools.lru_cache(maxsize=1024)
def _factors(height, width, indices, grid):
  if height < 1 or width < 1:
    raise ValueError(f'a filter of {height} x {width} is empty; give positive sizes')
  taken = {}
  for i, (u, v) in enumerate(indices):
    a, b = scale_frequency(u, height, grid[0]), scale_frequency(v, width, grid[1])
    problem = None
    if taken.get((a, b)) == (u, v):
      raise ValueError(f'frequency ({u}, {v}) is listed twice; list every frequency once')
    if a >= height or b >= width:
      problem = (f'frequency ({u}, {v}) of the {grid[0]} x {grid[1]} grid becomes ({a}, {b}), but '
                 f'{height} x {width} holds only 0..{height - 1} x 0..{width - 1}')
    elif (a, b) in taken:
      problem = (f'frequencies {taken[a, b]} and ({u}, {v}) of the {grid[0]} x {grid[1]} grid are '
                 f'both ({a}, {b}) at {height} x {width}')
    if problem:
      raise ValueError(f'{problem}; use a size of at least {grid[0]} x {grid[1]}, or '
                       + ('lower frequencies' if i == 0 else
                          f'only the first {i} of these {len(indices)} frequencies'))
    taken[a, b] = (u, v)
  rows, columns = zip(*taken)
  return dct_basis(height, rows, np.float64), dct_basis(width, columns, np.float64)


def check_split(channels, count):
  """Raises ValueError where `channels` does not split into `count` equal groups."""
  if channels % count == 0:
    return
  fitting = max(k for k in range(1, count + 1) if channels % k == 0)
  raise ValueError(f'channels={channels} does not split into {count} frequencies; use a multiple '
                   f"of {count} channels, or {fitting} frequencies, such as 'top{fitting}'")


def multispectral_basis(height, width, frequencies, channels, grid=GRID):
  """The filters of multi-spectral channel attention, one per channel.

      B[i, j, c] = b_u[i] b_v[j],  (u, v) the frequency of channel c's group

  The channels form contiguous groups of `channels / k`; group g carries frequency g. `b` are the
  orthonormal cosines of `dct_basis`, so every filter has unit norm, at the frequencies
  round(u * height / 7) and round(v * width / 7).

  Args:
    height, width: size of the filters.
    frequencies: as `frequency_indices` takes them.
    channels: a multiple of the number of frequencies.
    grid: as `frequency_indices` takes it.

  Returns:
    `[height, width, channels]` float32, read-only: the array is shared between callers.

  Raises:
    ValueError: channels that do not split, two filters that are equal at this size, or a
      frequency beyond it.

  Source: Qin et al., "FcaNet", ICCV 2021, equations 7 to 9.
  """
  grid = tuple(int(n) for n in grid)
  return _basis(int(height), int(width), frequency_indices(frequencies, grid), int(channels), grid)


@functools.lru_cache(maxsize=64)
def _basis(height, width, indices, channels, grid):
  check_split(channels, len(indices))
  rows, columns = _factors(height, width, indices, grid)
  filters = (rows[:, None] * columns).astype(np.float32)
  return _frozen(np.repeat(filters, channels // len(indices), axis=2))


def _frozen(array):
  array.setflags(write=False)
  return array
