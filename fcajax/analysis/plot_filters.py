"""`fcajax plot filters`: the DCT filters of the grid, the chosen ones framed (FcaNet, figure 6)."""
from fcajax.analysis.loading import parse_value
from fcajax.cli import positive_int


def add_arguments(parser):
  parser.add_argument(
      '--frequencies', default='top16',
      help="the ones to frame: 'top16', 'low8', 'bot4', 'all', a search.json or a list of pairs, "
           "'[(0,0),(1,1)]' (default top16)")
  parser.add_argument(
      '--size', type=positive_int, default=28,
      help='side of the filters in positions (default 28, that of stage 2 at 224 pixels)')
  parser.add_argument(
      '--out', default='dct_filters.png', metavar='FILE',
      help='picture to write (default dct_filters.png)')


def run(args):
  text = args.frequencies
  # A list of pairs comes as text; names and files are no literals.
  draw(parse_value(text) if text.lstrip().startswith(('[', '(')) else text, args.out, args.size)
  print(f'wrote {args.out}')
  return 0


def draw(frequencies, path, size=28, grid=(7, 7)):
  """Draws the filters b_u[i] b_v[j] of all (u, v) of the grid, each scaled to -1 .. 1.

  Args:
    frequencies: the framed ones, as `fcajax.ops.dct.frequency_indices` takes them. Their frames
      are numbered in that order.
    path: picture to write.
    size: side of the filters.
    grid: of the indices.

  Raises:
    ValueError: filters that are equal at this size.
  """
  import numpy as np
  from matplotlib.figure import Figure

  from fcajax.ops.dct import frequency_indices, multispectral_factors
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
  figure.savefig(path, dpi=150)
