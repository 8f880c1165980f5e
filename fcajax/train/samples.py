"""Evaluation images that a run leaves behind: as files, and as a picture of its predictions."""
import pathlib
import re

import numpy as np

from fcajax.train import figures

DIRECTORY = 'samples'
_CLASSES = 10
_PER_CLASS = 6
_SHOWN = 20


class Samples:
  """Collects a few images with their predictions while they pass through an evaluation.

  At most 6 images of each of the first 10 classes that appear, uint8 RGB only.

  Args:
    data: the pipeline, for class names and preprocessing.
    collect: False makes every method do nothing.
  """

  def __init__(self, data, *, collect):
    self._names = data.class_names
    self._collect = collect
    self._counts = {}
    self._pending = []
    self.images, self.labels, self.probabilities = [], [], []

  def watch(self, batches):
    """Yields `batches` unchanged and remembers which of their images to keep."""
    for batch in batches:
      self._pending.append(self._choose(batch) if self._collect else [])
      yield batch

  def _choose(self, batch):
    images = np.asarray(batch['image'])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
      return []
    chosen = []
    for row, (label, mask) in enumerate(zip(batch['label'].tolist(), batch['mask'])):
      known = label in self._counts
      if not mask or (not known and len(self._counts) >= _CLASSES):
        continue
      if self._counts.get(label, 0) < _PER_CLASS:
        self._counts[label] = self._counts.get(label, 0) + 1
        chosen.append((row, images[row].copy(), label))
    return chosen

  def add(self, probabilities, strategy):
    """Takes the output of the next batch; fetches it only where one of its images is kept."""
    chosen = self._pending.pop(0)
    if not chosen:
      return
    rows = strategy.local_rows(probabilities)
    for row, image, label in chosen:
      self.images.append(image)
      self.labels.append(label)
      self.probabilities.append(rows[row])

  def write(self, workdir):
    """Writes `samples/CLASS/NUMBER.png` and `predictions.png`; nothing without images."""
    if not self.images:
      return
    from PIL import Image
    workdir = pathlib.Path(workdir)
    for number, (image, label) in enumerate(zip(self.images, self.labels)):
      folder = workdir / DIRECTORY / _file_name(self._names[label])
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(folder / f'{number:03d}.png')
    # Mistakes first: they say more than another image that is right.
    wrong = [np.argmax(p) != label for p, label in zip(self.probabilities, self.labels)]
    order = sorted(range(len(wrong)), key=lambda i: (not wrong[i], i))
    order = [*order[:_SHOWN // 2], *[i for i in order[_SHOWN // 2:] if not wrong[i]]][:_SHOWN]
    figures.predictions(
        workdir, [self.images[i] for i in order], [self.labels[i] for i in order],
        [self.probabilities[i] for i in order], self._names)


def _file_name(name):
  return re.sub(r'[^\w.-]+', '_', str(name)) or 'unnamed'


def find(workdir):
  """A sample image of a finished run, or None."""
  return min((pathlib.Path(workdir) / DIRECTORY).glob('*/*.png'), default=None)


def is_trainable(workdir):
  """Whether the samples are a folder to train on: two classes or more, two images each."""
  folders = list((pathlib.Path(workdir) / DIRECTORY).glob('*/'))
  return len(folders) >= 2 and all(len(list(folder.glob('*.png'))) >= 2 for folder in folders)
