"""Names and files of frequency sets for multi-spectral attention: 'top16', 'search.json', pairs.

A frequency is a pair of indices (u, v) of a grid, by default 7 x 7: u counts half waves over the
height and v over the width.
"""
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from fcajax.errors import UserError
from fcajax.ops.dct import GRID

# The orders that FcaNet published for the 7 x 7 grid (Qin et al., "FcaNet", ICCV 2021, section 4.2
# and figure 4). The paper shows the ImageNet accuracy of ResNet-50 with one frequency at a time:
# TOP sorts the frequencies from the best to the worst, BOT from the worst to the best. LOW goes
# from low to high frequencies.
TOP = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0),
    (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2),
    (4, 6), (6, 3), (3, 3), (5, 3), (5, 5), (2, 1), (6, 1), (5, 2),
    (5, 4), (3, 2), (3, 1), (4, 1), (2, 3), (2, 0), (6, 5), (1, 3),
    (6, 4), (5, 1), (2, 5), (6, 2), (4, 2), (1, 5), (5, 6), (4, 5),
    (4, 4), (2, 4), (1, 1), (4, 3), (2, 6), (3, 6), (3, 4), (1, 4),
    (6, 6),
)
BOT = TOP[::-1]
LOW = (
    (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2),
    (2, 2), (0, 3), (3, 0), (4, 0), (0, 4), (1, 3), (3, 1), (0, 5),
    (1, 4), (2, 3), (3, 2), (4, 1), (5, 0), (0, 6), (1, 5), (2, 4),
    (3, 3), (4, 2), (5, 1), (6, 0), (1, 6), (2, 5), (3, 4), (4, 3),
)
ORDERS = {'top': TOP, 'bot': BOT, 'low': LOW}

_ACCEPTED = ("use 'topK' or 'botK' (K in 1..49), 'lowK' (K in 1..32), 'all', a search result "
             "'FILE.json' or 'FILE.json:topK', or a list of (u, v) pairs")


def frequency_indices(
    frequencies: Any, grid: Sequence[int] = GRID) -> tuple[tuple[int, int], ...]:
  """Resolves a name, a file or a list of frequencies to index pairs (u, v) of a grid.

  Args:
    frequencies: `'top16'`, `'bot4'` (1 to 49 frequencies) or `'low8'` (1 to 32), FcaNet's orders
      on the 7 x 7 grid; `'all'`, the whole grid row by row; the path of a frequency search's
      result, `'runs/search.json'` for the set it selected or `'runs/search.json:top8'` for the
      best 8 of its ranking; or a sequence of pairs.
    grid: `(rows, columns)` of the grid that the pairs index.

  Raises:
    UserError: an unknown name, a missing file or one that is not a search result, or a pair
      outside the grid.
  """
  rows, columns = grid = tuple(int(n) for n in grid)
  if isinstance(frequencies, pathlib.PurePath):
    frequencies = str(frequencies)
  if not isinstance(frequencies, str):
    return _checked_pairs(frequencies, grid, f'frequencies={frequencies!r}')
  if match := re.fullmatch(r'(.*\.json)(?::top(\d+))?', frequencies):
    return _from_search(match[1], match[2], grid)
  if frequencies == 'all':
    return tuple((u, v) for u in range(rows) for v in range(columns))
  match = re.fullmatch(r'(top|bot|low)([1-9]\d*)', frequencies)
  if not match:
    raise UserError(f'frequencies={frequencies!r} is unknown; {_ACCEPTED}')
  if grid != GRID:
    raise UserError(f'frequencies={frequencies!r} is published for the 7 x 7 grid, not '
                    f'{rows} x {columns}; give a list of (u, v) pairs')
  order, count = ORDERS[match[1]], int(match[2])
  if count > len(order):
    raise UserError(f'frequencies={frequencies!r} asks for {count} frequencies, but '
                    f"'{match[1]}' holds {len(order)}; use '{match[1]}{len(order)}' or fewer")
  return order[:count]


def portable_frequencies(frequencies: Any, grid: Sequence[int] = GRID) -> Any:
  """Replaces the path of a search result by the pairs it holds; returns anything else unchanged.

  A network is stored with the result, so that it can be built where the file does not exist.
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
    raise UserError(f'{name} is no list of (u, v) index pairs; {_ACCEPTED}')
  for u, v in result:
    if not (0 <= u < grid[0] and 0 <= v < grid[1]):
      raise UserError(f'{name}: ({u}, {v}) lies outside the {grid[0]} x {grid[1]} grid; '
                      f'u is in 0..{grid[0] - 1} and v in 0..{grid[1] - 1}')
  return result


def _from_search(path, top, grid):
  """Reads the selected set, or the best `top` of the ranking, from a frequency search's result."""
  try:
    content = json.loads(pathlib.Path(path).read_text())
  except OSError as error:
    raise UserError(f'cannot read the frequency file {path}: {error.strerror}; '
                    f'{_ACCEPTED}') from error
  except ValueError as error:
    raise UserError(f'{path} is no JSON ({error}); give the search.json that a frequency search '
                    'wrote') from error
  key = 'selected' if top is None else 'ranked'
  if not isinstance(content, dict) or key not in content or 'grid' not in content:
    raise UserError(f"{path} is no search result: it needs the keys 'grid' and '{key}'; give "
                    'the search.json that a frequency search wrote')
  if content['grid'] != list(grid):
    raise UserError(f"{path} was searched on the grid {content['grid']}, but the layer's grid is "
                    f'{list(grid)}; use the same grid')
  pairs = _checked_pairs(content[key], grid, f"'{key}' of {path}")
  if top is None:
    return pairs
  if not 1 <= int(top) <= len(pairs):
    raise UserError(f"'{path}:top{top}' asks for {top} frequencies, but {path} ranks "
                    f'{len(pairs)}; use top1 to top{len(pairs)}')
  return pairs[:int(top)]
