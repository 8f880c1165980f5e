"""What a data set is to the input pipeline, and the types that the sources share.

A data source is a function or class that is called with (settings, seed) and returns a `DataSet`.
Its two splits are `Examples`, which write one example at a time into the slots of a batch, or
`ArrayExamples`, which are in memory already. Everything else (order, sharding, parallel reading,
resuming, skipping, padding) is the pipeline's. docs/data.md has an example.
"""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from fcajax.errors import UserError
from fcajax.preprocessing.decode import ImageError
from fcajax.preprocessing.spec import Preprocessing
from fcajax.typing import Int, Integer, Shaped, UInt8

# A pytree of arrays whose top level is a dict.
Batch = dict[str, Any]


class ExampleError(UserError):
  """One example cannot be read. It is skipped, named once and counted; the run goes on."""


# What `Examples.load` may raise for an example to be skipped. Anything else ends the run.
SKIPPED_ERRORS = (ExampleError, ImageError, OSError)


@runtime_checkable
class Examples(Protocol):
  """One split of a data set, read in parallel threads and processes.

  A split whose batches come in several shapes also has the attribute `groups`, int `[N]`: the group
  of each example, from 0. All examples of a batch then belong to one group, and a group's examples
  have one shape.
  """

  def __len__(self) -> int:
    """Returns the number of examples."""

  def name(self, index: int) -> str:
    """Returns what an example is called in messages, such as the name of its file."""

  def spec(self, group: int) -> Batch:
    """Returns the `jax.ShapeDtypeStruct` of every array of one example of the group.

    Args:
      group: 0 for splits without `groups`.
    """

  def load(self, index: int, out: Batch, generator: np.random.Generator | None) -> None:
    """Writes an example into a slot of a batch.

    It is called from several threads at once.

    Args:
      index: of the example.
      out: arrays of the shapes of `spec`, filled with zeros; write `out['label'][...] = 3`.
      generator: random numbers that depend on the seed and on the example's position in the
        endless training order alone; None in evaluation.
    Raises:
      ExampleError, ImageError, OSError: the example is damaged. In training the next example takes
        its place, in evaluation it is masked out.
    """


class ArrayExamples:
  """One split that is in memory.

  Args:
    arrays: every array with the examples as its first axis.
  """

  def __init__(self, arrays: Batch):
    sizes = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if len(sizes) != 1:
      raise UserError(f'all arrays need one entry for each example; their lengths are {sizes}')
    self.arrays = arrays
    self._length = sizes.pop()

  def __len__(self) -> int:
    return self._length

  def name(self, index: int) -> str:
    return f'example {index}'


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What a data source returns.

  A task that needs to know more of its data, such as the ground truth of COCO's evaluation, gets it
  from a subclass: the pipeline offers the object as `Pipeline.data_set`.

  Attributes:
    train, evaluation: the splits.
    class_names: in the order of the labels.
    preprocessing: of the model that is trained on this.
    device_augment: None, or a pure function of (key, uint8 images `[N, H, W, 3]`) that the training
      step applies to `batch['image']` first.
    note: what the user should know about the splits; '' for nothing.
    train_folder: where the training images lie, if the evaluation images have a folder of their
      own; else ''.
    unit: what one example is called in messages.
    left_out: examples that could not be read while the data set was opened, by split:
      {'train' or 'evaluation': (examples in that split, [(name, reason), ...])}.
  """
  train: Examples | ArrayExamples
  evaluation: Examples | ArrayExamples
  class_names: Sequence[str]
  preprocessing: Preprocessing
  device_augment: Callable[..., Any] | None = None
  note: str = ''
  train_folder: str = ''
  unit: str = 'image'
  left_out: Mapping[str, tuple[int, Sequence[tuple[str, str]]]] = dataclasses.field(
      default_factory=dict)


@runtime_checkable
class ImageSource(Protocol):
  """Images and labels by index: what image classification reads.

  Attributes:
    image_shape: (height, width) of every image, or None where they differ.
  """
  image_shape: tuple[int, int] | None

  def __len__(self) -> int:
    """Returns the number of images."""

  def name(self, index: int) -> str:
    """Returns what an image is called in messages."""

  def read(self, index: int) -> tuple[bytes | UInt8[np.ndarray, 'h w 3'], int]:
    """Returns (the encoded bytes or the RGB pixels, the label)."""


class ArraySource:
  """Images of one size in memory.

  Args:
    images: RGB.
    labels: one for each image.
    names: what each image is called in messages; None for its index.
  """

  def __init__(self, images: Shaped[np.ndarray, '...'], labels: Sequence[int] | Shaped[
      np.ndarray, '...'], names: Sequence[str] | None = None):
    self.images = np.ascontiguousarray(images)
    self.labels = np.asarray(labels, np.int32)
    self._names = names
    if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
      raise UserError(f'images must be uint8 [N, H, W, 3]; got {self.images.dtype} '
                      f'{list(self.images.shape)}')
    if self.labels.shape != (len(self.images),):
      raise UserError(f'{len(self.images)} images need as many labels; got '
                      f'{list(self.labels.shape)}')

  def __len__(self) -> int:
    return len(self.images)

  def read(self, index: int) -> tuple[UInt8[np.ndarray, 'h w 3'], int]:
    return self.images[index], int(self.labels[index])

  def name(self, index: int) -> str:
    return str(self._names[index]) if self._names is not None else f'image {index}'

  @property
  def image_shape(self) -> tuple[int, int]:
    return self.images.shape[1:3]


@dataclasses.dataclass(frozen=True)
class Splits:
  """A data set of images and labels.

  Attributes:
    train, evaluation: the images.
    class_names: in the order of the labels.
    mirror: False where a mirrored image would be of another class.
    train_folder, note: see `DataSet`.
  """
  train: ImageSource
  evaluation: ImageSource
  class_names: Sequence[str]
  mirror: bool = True
  train_folder: str = ''
  note: str = ''


def check_label(name: Callable[[int], str], index: int, label: int, classes: int) -> None:
  """Refuses a label outside 0 .. classes - 1; hidden labels of test sets are often -1.

  Args:
    name: the source's `name`, which is called for the message.
    index: of the image.
    label: of the image.
    classes: number of classes.
  Raises:
    UserError: names the image and the label.
  """
  if not 0 <= label < classes:
    raise UserError(f'the label of {name(index)} is {label}; labels lie in 0..{classes - 1}. '
                    'Test sets whose labels are hidden cannot be trained or evaluated on: use '
                    'another split')


def stratified_split(
    labels: Sequence[int] | Integer[np.ndarray, ' n'], fraction: float, seed: int,
) -> tuple[Int[np.ndarray, ' kept'], Int[np.ndarray, ' held']]:
  """Splits every class by the same fraction.

  Args:
    labels: of all examples.
    fraction: share of each class held out, rounded, at least one of every class of two or more.
    seed: of the choice, which depends on nothing else.
  Returns:
    (kept, held out): ascending indices.
  Raises:
    UserError: a fraction outside (0, 1), or nothing left to hold out.
  """
  if not 0 < fraction < 1:
    raise UserError(f'data.validation_fraction={fraction} must lie between 0 and 1')
  labels = np.asarray(labels)
  generator = np.random.default_rng([int(seed), 0x5B117])
  held = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = generator.permutation(np.flatnonzero(labels == label))
    if len(members) > 1:
      held[members[:min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
  if not held.any():
    raise UserError('no class has two images, so none can be held out; add images or give a '
                    'validation folder')
  return np.flatnonzero(~held), np.flatnonzero(held)
