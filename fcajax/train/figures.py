"""The two pictures that a run leaves: its learning curves and a few predictions."""
import pathlib

import numpy as np

from fcajax.train import writers

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = '#0072B2', '#D55E00', '#666666'


def _figure(rows, columns, width, height):
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  return figure, figure.subplots(rows, columns, squeeze=False)


def learning_curves(workdir):
  """Draws `learning_curves.png` (loss and accuracy over epochs) from `metrics.jsonl`."""
  workdir = pathlib.Path(workdir)
  rows = writers.read_rows(workdir)
  figure, axes = _figure(1, 2, 9, 3.6)
  for axis, key, title, scale in (
      (axes[0, 0], 'loss', 'Loss', 1), (axes[0, 1], 'accuracy', 'Top-1 accuracy (%)', 100)):
    for split, color, label in (('train', BLUE, 'training'), ('evaluation', ORANGE, 'evaluation')):
      points = [(row['epoch'], row[key]) for row in rows
                if row['split'] == split and row.get(key) is not None]
      if not points:
        continue
      x, y = np.array(points).T
      marker = 'o' if split == 'evaluation' and len(points) <= 40 else None
      axis.plot(x, y * scale, color=color, label=label, marker=marker, markersize=3.5, lw=1.6)
    axis.set_title(title, loc='left', fontsize=11)
    axis.set_xlabel('epoch')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
    axis.set_ylim(bottom=0)
  axes[0, 0].legend(frameon=False)
  figure.savefig(workdir / 'learning_curves.png', dpi=130)


def predictions(workdir, images, labels, probabilities, class_names, columns=5):
  """Draws `predictions.png`: images with their predicted class, its probability and the truth.

  Args:
    workdir: the work directory.
    images: uint8 `[H, W, 3]` each.
    labels: int each.
    probabilities: `[classes]` each.
    class_names: list of str.
    columns: images a row.
  """
  count = -(-len(images) // columns)
  figure, axes = _figure(count, columns, 2 * columns, 2.35 * count)
  for axis in axes.flat:
    axis.set_axis_off()
  for axis, image, label, row in zip(axes.flat, images, labels, probabilities):
    guess = int(np.argmax(row))
    right = guess == label
    axis.imshow(image, interpolation='nearest' if max(image.shape) <= 64 else 'antialiased')
    title = f'{_short(class_names[guess])} {row[guess]:.0%}'
    if not right:
      title += f'\nis {_short(class_names[label])}'
    # A class name may hold what matplotlib would take for a formula.
    axis.set_title(title, parse_math=False, fontsize=10, color=BLUE if right else ORANGE,
                   fontweight='normal' if right else 'bold')
  figure.suptitle('Predicted class and its probability; orange: wrong', fontsize=11, color=GREY)
  figure.savefig(pathlib.Path(workdir) / 'predictions.png', dpi=110)


def _short(name, length=18):
  return name if len(name) <= length else name[:length - 1] + '…'
