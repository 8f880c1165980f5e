"""`fcajax plot curves RUN RUN ...`: the learning curves of several runs in one picture."""
import pathlib

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
PANELS = (('train', 'loss', 'Training loss', 1),
          ('evaluation', 'accuracy', 'Evaluation top-1 (%)', 100))


def add_arguments(parser):
  parser.add_argument('runs', nargs='+', help='work directories of train.py')
  parser.add_argument('--labels', nargs='+', metavar='TEXT', default=None,
                      help='a name for each run (default: its folder)')
  parser.add_argument('--out', default='curves.png', metavar='FILE',
                      help='picture to write (default: curves.png)')


def run(args):
  labels = args.labels or [pathlib.Path(name).resolve().name for name in args.runs]
  if len(labels) != len(args.runs):
    raise ValueError(f'--labels gives {len(labels)} names for {len(args.runs)} runs; one each')
  if len(args.runs) > len(COLORS):
    raise ValueError(f'{len(args.runs)} runs; one picture holds at most {len(COLORS)}')
  draw(args.runs, labels, args.out)
  print(f'wrote {args.out}')
  return 0


def draw(runs, labels, path):
  """Writes training loss and evaluation accuracy over epochs, a colour for each run.

  Args:
    runs: work directories; each must hold a `metrics.jsonl`.
    labels: their names in the legend.
    path: picture to write.
  """
  from matplotlib.figure import Figure

  from fcajax.train import writers
  figure = Figure(figsize=(9.5, 3.8), layout='constrained')
  axes = figure.subplots(1, 2)
  for workdir, label, color in zip(runs, labels, COLORS):
    rows = writers.read_rows(pathlib.Path(workdir))
    if not rows:
      raise ValueError(
          f"'{workdir}' holds no metrics.jsonl; give a work directory of train.py")
    for axis, (split, key, _, scale) in zip(axes, PANELS):
      points = [(row['epoch'], scale * row[key]) for row in rows
                if row['split'] == split and row.get(key) is not None]
      if points:
        x, y = zip(*points)
        last = f': {y[-1]:.1f}' if split == 'evaluation' else ''
        axis.plot(x, y, color=color, label=label + last, lw=1.6,
                  marker='o' if split == 'evaluation' else None, markersize=3.5)
  for axis, (_, _, title, _) in zip(axes, PANELS):
    axis.set_title(title, loc='left', fontsize=11)
    axis.set_xlabel('epoch')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
  axes[1].set_ylim(bottom=0)
  axes[1].legend(frameon=False, fontsize=9)
  figure.savefig(path, dpi=130)
