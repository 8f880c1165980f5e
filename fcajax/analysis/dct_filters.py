"""The DCT filters of a grid of frequencies, the chosen ones framed (FcaNet, figure 6)."""
import pathlib
from typing import Any

import numpy as np

from fcajax.analysis.pictures import save_figure
from fcajax.ops.dct import GRID, multispectral_factors
from fcajax.selection.frequencies import frequency_indices


def draw(frequencies: Any, path: str | pathlib.Path, size: int = 28,
         grid: tuple[int, int] = GRID) -> None:
  """Draws the filters b_u[i] b_v[j] of all (u, v) of the grid, each scaled to -1..1.

  Args:
    frequencies: the framed ones, as `frequency_indices` takes them. Their frames are numbered in
      that order.
    path: of the picture.
    size: side of the filters.
    grid: (rows, columns) of the indices.

  Raises:
    UserError: filters that are equal at this size.
  """
  from matplotlib.figure import Figure
  chosen = frequency_indices(frequencies, grid)
  pairs = [(u, v) for u in range(grid[0]) for v in range(grid[1])]
  rows, columns = multispectral_factors(size, size, pairs, grid)
  figure = Figure(figsize=(0.98 * grid[1] + 0.5, 0.98 * grid[0] + 0.9), layout='constrained')
  axes = figure.subplots(*grid, squeeze=False)
  for k, (u, v) in enumerate(pairs):
    axis = axes[u, v]
    filter_ = np.outer(rows[:, k], columns[:, k])
    axis.imshow(filter_ / np.abs(filter_).max(), cmap='gray', vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color='0.6', linewidth=0.5)
    if (u, v) in chosen:
      axis.spines[:].set(color='#d55e00', linewidth=4)
      axis.text(0.06, 0.93, str(chosen.index((u, v)) + 1), transform=axis.transAxes, va='top',
                fontsize=9, fontweight='bold', color='black',
                bbox={'boxstyle': 'round,pad=0.15', 'fc': 'white', 'ec': '#d55e00', 'lw': 1})
    if u == grid[0] - 1:
      axis.set_xlabel(v, fontsize=11)
    if v == 0:
      axis.set_ylabel(u, fontsize=11, rotation=0, labelpad=10, va='center')
  name = frequencies if isinstance(frequencies, str) else f'{len(chosen)} chosen'
  figure.suptitle(f'DCT filters (u, v); framed and numbered by rank: {name}', fontsize=12)
  figure.supxlabel('v: frequency along the width', fontsize=11)
  figure.supylabel('u: frequency along the height', fontsize=11)
  save_figure(figure, path)
