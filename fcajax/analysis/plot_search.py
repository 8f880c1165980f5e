"""`fcajax plot search RESULT`: accuracy of each single frequency, as in FcaNet's figure 4."""
import pathlib

import numpy as np

from fcajax.analysis import search_report


def add_arguments(parser):
  parser.add_argument('result', help='a search.json or the work directory of a search')
  parser.add_argument(
      '--out', default=None, metavar='FILE',
      help='picture to write (default: search.png beside the result)')


def run(args):
  path = pathlib.Path(args.result)
  report = search_report.load_report(path)
  folder = path if path.is_dir() else path.parent
  out = pathlib.Path(args.out) if args.out else folder / 'search.png'
  draw(report, out)
  if 'statement' in report:
    print(search_report.as_table(report))
  print(f'wrote {out}')
  return 0


def draw(report, path):
  """Writes the heat map of a search, the selected frequencies framed, and its statement below.

  Args:
    report: the content of `search.json`; only 'grid', 'accuracy' and 'selected' are needed.
    path: picture to write.
  """
  from matplotlib.figure import Figure
  from matplotlib.patches import Rectangle
  mean = np.asarray(report['accuracy'])
  std = np.asarray(report['std']) if len(report.get('seeds', ())) > 1 else None
  rows, columns = mean.shape
  # Wide enough for the title, however few frequencies there are.
  figure = Figure(figsize=(max(7.5, 2.2 + 0.95 * columns), max(3.2, 1.9 + 0.78 * rows)),
                  layout='constrained')
  axes = figure.subplots()
  # 'cividis' grows evenly in lightness for every kind of colour vision, and in print.
  image = axes.imshow(mean, cmap='cividis', aspect='auto')
  low, high = mean.min(), mean.max()
  for u, v in np.ndindex(rows, columns):
    text = f'{mean[u, v]:.2f}' + (f'\n±{std[u, v]:.2f}' if std is not None else '')
    dark = mean[u, v] < low + 0.55 * (high - low)
    axes.text(v, u, text, ha='center', va='center', fontsize=10,
              color='white' if dark else 'black')
  selected = report.get('selected', [])
  if len(selected) < mean.size:
    for u, v in selected:
      axes.add_patch(Rectangle((v - 0.45, u - 0.45), 0.9, 0.9, fill=False, lw=2.2, ec='white'))
      axes.add_patch(Rectangle((v - 0.45, u - 0.45), 0.9, 0.9, fill=False, lw=1.4, ec='#d81b60'))
  axes.set(xticks=range(columns), yticks=range(rows), xlabel='v: frequency along the width',
           ylabel='u: frequency along the height')
  axes.tick_params(length=0)
  protocol = report.get('protocol', {})
  title = ' on '.join(filter(None, (protocol.get('model'), protocol.get('data'))))
  axes.set_title(f'Held-out top-1 accuracy with one frequency{": " + title if title else ""}\n'
                 f'framed: the {len(selected)} selected', fontsize=11)
  figure.colorbar(image, label='top-1 accuracy, %', shrink=0.9)
  figure.savefig(path, dpi=150)
