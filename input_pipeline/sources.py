"""Where examples come from: a source is a sized, random-access list of images and labels."""
import dataclasses

import numpy as np

DIGITS_SIZE = 32


class ArraySource:
  """Images of one size in memory.

  Args:
    images: uint8 `[N, H, W, 3]`.
    labels: integers `[N]`.
    names: what each image is called in messages; None for its number.
  """

  def __init__(self, images, labels, names=None):
    self.images = np.ascontiguousarray(images)
    self.labels = np.asarray(labels, np.int32)
    self._names = names
    if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
      raise ValueError(f'images must be uint8 [N, H, W, 3]; got {self.images.dtype} '
                       f'{list(self.images.shape)}')
    if self.labels.shape != (len(self.images),):
      raise ValueError(f'{len(self.images)} images need as many labels; got '
                       f'{list(self.labels.shape)}')

  def __len__(self):
    return len(self.images)

  def read(self, index):
    """(image uint8 `[H, W, 3]`, label)."""
    return self.images[index], int(self.labels[index])

  def name(self, index):
    return str(self._names[index]) if self._names is not None else f'image {index}'

  @property
  def image_shape(self):
    """(height, width) of every image."""
    return self.images.shape[1:3]


@dataclasses.dataclass(frozen=True)
class Splits:
  """A data set: what is trained on, what is evaluated on, and the names of the classes.

  Attributes:
    train, evaluation: sources with `__len__`, `read(index) -> (bytes or uint8 image, label)`,
      `name(index)` and `image_shape` (None where images differ in size).
    class_names: in the order of the labels.
    mirror: False where a mirrored image would be of another class.
    train_folder: where the training images lie, if the evaluation images have a folder of their
      own; else ''.
    note: what the user should know about how the splits came about; '' for nothing.
  """
  train: object
  evaluation: object
  class_names: list[str]
  mirror: bool = True
  train_folder: str = ''
  note: str = ''


def stratified_split(labels, fraction, seed):
  """Splits every class by the same fraction.

  Args:
    labels: integers `[N]`.
    fraction: share of each class held out, rounded, at least one of every class of two or more.
    seed: of the choice; it does not depend on anything else.
  Returns:
    (kept, held out): ascending indices.
  Raises:
    ValueError: a fraction outside (0, 1), or nothing left to hold out.
  """
  if not 0 < fraction < 1:
    raise ValueError(f'data.validation_fraction={fraction} must lie between 0 and 1')
  labels = np.asarray(labels)
  generator = np.random.default_rng([int(seed), 0x5B117])
  held = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = generator.permutation(np.flatnonzero(labels == label))
    if len(members) > 1:
      held[members[:min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
  if not held.any():
    raise ValueError('no class has two images, so none can be held out; add images or give a '
                     'validation folder')
  return np.flatnonzero(~held), np.flatnonzero(held)


def load_digits(validation_fraction, seed):
  """scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to 32 x 32 grey RGB."""
  import cv2
  from sklearn import datasets
  digits = datasets.load_digits()
  images = [cv2.resize(image, (DIGITS_SIZE, DIGITS_SIZE), interpolation=cv2.INTER_CUBIC)
            for image in (digits.images * (255 / 16)).astype(np.float32)]
  images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
  images = np.repeat(images[..., None], 3, axis=-1)
  kept, held = stratified_split(digits.target, validation_fraction, seed)

  def part(indices):
    return ArraySource(images[indices], digits.target[indices], [f'digit {i}' for i in indices])

  return Splits(part(kept), part(held), [str(name) for name in digits.target_names], mirror=False)


def load_splits(settings, seed):
  """Opens the data set that the settings name.

  Args:
    settings: a `DataSettings`.
    seed: of a held-out split, where the data set has none of its own.
  Returns:
    `Splits`.
  Raises:
    ValueError, FileNotFoundError: nothing there, or not what is expected; the message names it.
  """
  if settings.source == 'digits':
    return load_digits(settings.validation_fraction, seed)
  if settings.source == 'tfds':
    from input_pipeline import tfds_source
    return tfds_source.load_splits(settings)
  from input_pipeline import folder
  return folder.load_splits(settings, seed)
