"""Evaluation images that a run of classification leaves: as files, and as a plot of predictions."""
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcajax.analysis.curves import BLUE, ORANGE
from fcajax.tasks.base import Batch, Collector
from fcajax.typing import Float, UInt8

DIRECTORY = 'samples'
PICTURE = 'predictions.png'
_GREY = '#666666'
_CLASSES = 10
_PER_CLASS = 6
_SHOWN = 20


class Samples(Collector):
  """Collects a few images with their predictions while they pass through an evaluation.

  At most 6 images of each of the first 10 classes that appear, uint8 RGB only.

  Args:
    class_names: in the order of the labels.
  """

  def __init__(self, class_names: Sequence[str]):
    self._names = class_names
    self._counts = {}
    self.images, self.labels, self.probabilities = [], [], []

  def keep(self, batch: Batch) -> list[tuple[int, Any, int]] | None:
    images = np.asarray(batch['image'])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
      return None
    chosen = []
    for row, (label, mask) in enumerate(zip(batch['label'].tolist(), batch['mask'])):
      known = label in self._counts
      if not mask or (not known and len(self._counts) >= _CLASSES):
        continue
      if self._counts.get(label, 0) < _PER_CLASS:
        self._counts[label] = self._counts.get(label, 0) + 1
        chosen.append((row, images[row].copy(), label))
    return chosen or None

  def add(self, kept: list[tuple[int, Any, int]], rows: Float[np.ndarray, 'n classes']) -> None:
    for row, image, label in kept:
      self.images.append(image)
      self.labels.append(label)
      self.probabilities.append(rows[row])

  def draw(self, directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes `samples/CLASS/NUMBER.png` and `predictions.png`; nothing if there are no images."""
    if not self.images:
      return []
    from PIL import Image
    for number, (image, label) in enumerate(zip(self.images, self.labels)):
      folder = directory / DIRECTORY / _file_name(self._names[label])
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(folder / f'{number:03d}.png')
    # Mistakes first: they say more than another image that is right.
    wrong = [np.argmax(p) != label for p, label in zip(self.probabilities, self.labels)]
    order = sorted(range(len(wrong)), key=lambda i: (not wrong[i], i))
    order = [*order[:_SHOWN // 2], *[i for i in order[_SHOWN // 2:] if not wrong[i]]][:_SHOWN]
    path = directory / PICTURE
    draw_predictions(
        path, [self.images[i] for i in order], [self.labels[i] for i in order],
        [self.probabilities[i] for i in order], self._names)
    return [path]


def draw_predictions(path: str | pathlib.Path, images: Sequence[UInt8[np.ndarray, 'h w 3']],
                     labels: Sequence[int], probabilities: Sequence[Float[np.ndarray, ' classes']],
                     class_names: Sequence[str], columns: int = 5) -> None:
  """Draws images with their predicted class, its probability and, where it is wrong, the truth."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  count = -(-len(images) // columns)
  figure = Figure(figsize=(2 * columns, 2.35 * count), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(count, columns, squeeze=False)
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
  figure.suptitle('Predicted class and its probability; orange: wrong', fontsize=11, color=_GREY)
  figure.savefig(path, dpi=110)


def _short(name: str, length: int = 18) -> str:
  return name if len(name) <= length else name[:length - 1] + '…'


def _file_name(name: str) -> str:
  return re.sub(r'[^\w.-]+', '_', str(name)) or 'unnamed'


def find(workdir: str | pathlib.Path) -> pathlib.Path | None:
  """Returns a sample image of a finished run, or None."""
  return min((pathlib.Path(workdir) / DIRECTORY).glob('*/*.png'), default=None)


def is_trainable(workdir: str | pathlib.Path) -> bool:
  """Returns True if the samples are a folder to train on: two classes, two images each."""
  folders = list((pathlib.Path(workdir) / DIRECTORY).glob('*/'))
  return len(folders) >= 2 and all(len(list(folder.glob('*.png'))) >= 2 for folder in folders)
