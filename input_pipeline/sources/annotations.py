"""Annotated images: boxes, labels and outlines by image, whatever file format they came from."""
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fcajax.errors import NotFoundError, UserError, did_you_mean
from fcajax.typing import Bool, Float, Int

Outline = tuple | dict | None
"""An object's outline in pixels of the original image: a tuple of polygons, float32 `[2k]` each (x
and y in turn); or COCO's run-length code, {'size': [height, width], 'counts': ...}; or None."""

_NAMED = 5


class Notes:
  """Counts what is wrong with a data set: one line for each kind, with the first few names."""

  def __init__(self):
    self._kinds: dict[str, tuple[list[int], dict[str, None]]] = {}

  def add(self, kind: str, name: str, count: int = 1) -> None:
    """Counts `count` cases of `kind` in the image or file `name`."""
    total, names = self._kinds.setdefault(kind, ([0], {}))
    total[0] += count
    names[name] = None

  def lines(self) -> tuple[str, ...]:
    """Returns one line for each kind: 'KIND: COUNT (NAME, NAME and N more)'."""
    return tuple(f'{kind}: {total[0]} ({few(names)})'
                 for kind, (total, names) in self._kinds.items())


def few(names: Iterable[str]) -> str:
  """Returns the first five names and how many more there are."""
  names = [str(name) for name in names]
  more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
  return ', '.join(names[:_NAMED]) + more


@dataclasses.dataclass(frozen=True)
class ImageRecord:
  """What is known about one image.

  Attributes:
    image_id: as the annotation file has it.
    name: of the image file, for messages.
    size: (height, width) in pixels.
    boxes: corners x1, y1, x2, y2 in pixels, inside the image.
    labels: indices in `class_names`.
    crowd: True for regions that training and evaluation leave out: COCO's crowds, Pascal VOC's
      difficult objects.
    areas: of the objects in square pixels.
    outlines: an `Outline` for each box.
  """
  image_id: Any
  name: str
  size: tuple[int, int]
  boxes: Float[np.ndarray, 'n 4']
  labels: Int[np.ndarray, ' n']
  crowd: Bool[np.ndarray, ' n']
  areas: Float[np.ndarray, ' n']
  outlines: tuple

  def select(self, rows: Any) -> 'ImageRecord':
    """Returns the record with the objects `rows` (indices, or a mask) alone."""
    rows = np.arange(len(self.labels))[rows]
    return dataclasses.replace(
        self, boxes=self.boxes[rows], labels=self.labels[rows], crowd=self.crowd[rows],
        areas=self.areas[rows], outlines=tuple(self.outlines[row] for row in rows))


class _Outlines:
  """Outlines of all objects in a few arrays, so that a worker process receives them fast."""

  def __init__(self, outlines: Sequence[Outline]):
    self._codes = {i: outline for i, outline in enumerate(outlines) if isinstance(outline, dict)}
    polygons = [outline if isinstance(outline, tuple) else () for outline in outlines]
    self._first = np.cumsum([0, *map(len, polygons)])
    flat = [polygon for parts in polygons for polygon in parts]
    self._ends = np.cumsum([0, *map(len, flat)])
    self._coordinates = np.concatenate([np.zeros(0, np.float32), *flat])

  def __getitem__(self, index: int) -> Outline:
    if index in self._codes:
      return self._codes[index]
    first, last = self._first[index], self._first[index + 1]
    return tuple(self._coordinates[self._ends[i]:self._ends[i + 1]]
                 for i in range(first, last)) or None


class DetectionSource:
  """A sized, random-access list of images with boxes, and outlines where there are any.

  Args:
    folder: that the image files lie in.
    records: of all images; file names relative to `folder`.
    class_names: in the order of the labels.
    category_ids: of each class in the annotation file; -1 for a class that the file does not have.
    notes: what was found wrong, one line for each kind.
    ground_truth: returns the annotations as a dict in COCO's format, for evaluation.
  """

  image_shape = None

  def __init__(self, folder: str | os.PathLike, records: Sequence[ImageRecord],
               class_names: Sequence[str], category_ids: Sequence[int], notes: Sequence[str],
               ground_truth: Callable[[], dict]):
    self._folder = str(folder)
    self.class_names, self.category_ids = list(class_names), list(category_ids)
    self.notes = tuple(notes)
    self._ground_truth = ground_truth
    self.image_ids = [record.image_id for record in records]
    self._names = [record.name for record in records]
    self.sizes = np.array([record.size for record in records], np.int32).reshape(-1, 2)
    self._first = np.cumsum([0, *(len(record.labels) for record in records)])
    parts = {'boxes': np.zeros((0, 4), np.float32), 'labels': np.zeros(0, np.int32),
             'crowd': np.zeros(0, bool), 'areas': np.zeros(0, np.float32)}
    self._objects = {
        key: np.concatenate([empty, *(getattr(record, key) for record in records)])
        for key, empty in parts.items()}
    self._outlines = _Outlines([outline for record in records for outline in record.outlines])
    self._chosen = np.arange(len(records))

  def __len__(self) -> int:
    return len(self._chosen)

  def name(self, index: int) -> str:
    """Returns the name of the image file."""
    return self._names[self._chosen[index]]

  def record(self, index: int) -> ImageRecord:
    """Returns what is known about an image, without opening its file."""
    image = self._chosen[index]
    first, last = self._first[image], self._first[image + 1]
    return ImageRecord(
        self.image_ids[index], self._names[image], tuple(map(int, self.sizes[index])),
        **{key: values[first:last] for key, values in self._objects.items()},
        outlines=tuple(self._outlines[i] for i in range(first, last)))

  def read(self, index: int) -> tuple[bytes, ImageRecord]:
    """Returns the bytes of the image file, and what is known about it.

    Raises:
      OSError: the file cannot be read.
    """
    record = self.record(index)
    with open(os.path.join(self._folder, record.name), 'rb') as file:
      return file.read(), record

  @property
  def has_outlines(self) -> bool:
    """True if any object has an outline."""
    return any(outline is not None for i in range(len(self))
               for outline in self.record(i).outlines)

  def ground_truth(self) -> dict:
    """Returns images, annotations and categories in COCO's format, for evaluation."""
    truth, kept = self._ground_truth(), set(self.image_ids)
    return {'images': [entry for entry in truth['images'] if entry['id'] in kept],
            'annotations': [entry for entry in truth['annotations'] if entry['image_id'] in kept],
            'categories': truth['categories']}

  def select(self, indices: Any, notes: Sequence[str] = ()) -> 'DetectionSource':
    """Returns a source of the images `indices`; it shares the memory of this one."""
    selected = object.__new__(DetectionSource)
    selected.__dict__.update(self.__dict__)
    indices = np.asarray(indices, int)
    selected._chosen = self._chosen[indices]
    selected.image_ids = [self.image_ids[i] for i in indices]
    selected.sizes = self.sizes[indices]
    selected.notes = (*self.notes, *notes)
    return selected

  def for_training(self, *, masks: bool = False, min_side: int = 32,
                   max_boxes: int = 100) -> 'DetectionSource':
    """Returns the images to train on: those with an object, and large enough.

    Args:
      masks: whether objects need an outline; one without is left out.
      min_side: images with a shorter side are left out; 32 is the largest stride but one of a
        feature pyramid, and mmdetection's limit.
      max_boxes: images with more objects are named in `notes`; training keeps the largest ones.
    Raises:
      UserError: nothing is left.
    """
    notes, kept = Notes(), []
    for index in range(len(self)):
      record, name = self.record(index), self.name(index)
      usable = ~record.crowd
      if masks:
        outlined = np.array([outline is not None for outline in record.outlines], bool)
        lacking = int((usable & ~outlined).sum())
        if lacking:
          notes.add('objects without a usable outline, left out of training', name, lacking)
        usable &= outlined
      if min(record.size) < min_side:
        notes.add(f'images with a side below {min_side} pixels, left out of training', name)
      elif not usable.any():
        notes.add('images without objects, left out of training', name)
      else:
        kept.append(index)
        if usable.sum() > max_boxes:
          notes.add(f'images with more than max_boxes={max_boxes} objects, of which training keeps '
                    'the largest', f'{name} has {usable.sum()}')
    if not kept:
      raise UserError(f'none of {len(self)} images can be trained on. '
                      f'{"; ".join((*self.notes, *notes.lines()))}')
    return self.select(kept, notes.lines())


def check_image(entry_size: tuple, name: str, notes: Notes) -> bool:
  """Returns True if a height and width make sense; otherwise notes the image."""
  good = all(isinstance(side, int) and 0 < side < 2**31 for side in entry_size)
  if not good:
    notes.add('images with a size that is none, left out', f'{name}: {entry_size}')
  return good


def check_box(corners: Sequence[float], size: tuple[int, int], name: str,
              notes: Notes) -> tuple[float, float, float, float] | None:
  """Returns the box inside the image, or None for one that cannot be used; notes both.

  Args:
    corners: x1, y1, x2, y2 in pixels.
    size: (height, width) of the image.
    name: of the image.
    notes: counts what is wrong.
  """
  # Plain numbers: COCO has a million boxes, and NumPy would take half a minute for them.
  x1, y1, x2, y2 = map(float, corners)
  if not all(map(math.isfinite, (x1, y1, x2, y2))):
    notes.add('boxes with a number that is not finite, left out', name)
    return None
  if x2 <= x1 or y2 <= y1:
    notes.add('boxes of no area, left out', name)
    return None
  height, width = size
  left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
  if right <= left or bottom <= top:
    notes.add('boxes wholly outside their image, left out', name)
    return None
  if right - left < 1 or bottom - top < 1:
    notes.add('boxes of less than one pixel a side, left out', name)
    return None
  # Annotation tools round: up to a pixel outside is no mistake.
  if max(left - x1, top - y1, x2 - right, y2 - bottom) > 1:
    notes.add('boxes that reach outside their image, clipped', name)
  return left, top, right, bottom


def find_missing(folder: str | os.PathLike, names: Sequence[str], file: str,
                 max_missing_fraction: float, notes: Notes) -> set[str]:
  """Returns which image files do not exist, and notes them.

  Args:
    folder: that the images lie in.
    names: relative to it.
    file: that names the images, for messages.
    max_missing_fraction: of the images, above which it is an error.
    notes: counts the missing ones.
  Raises:
    NotFoundError: no such folder, or too many images are missing.
  """
  folder = pathlib.Path(folder).expanduser()
  if not folder.is_dir():
    raise NotFoundError(f"the image folder '{folder}' is not a directory")
  here = {entry.name for entry in os.scandir(folder)}
  missing = [name for name in names
             if (os.sep in name or name not in here) and not (folder / name).is_file()]
  if len(missing) > max_missing_fraction * len(names) or len(missing) == len(names):
    raise NotFoundError(
        f"{len(missing)} of {len(names)} images that '{file}' names are not in '{folder}': "
        f'{few(missing)}; give the folder that holds them')
  for name in missing:
    notes.add('images that do not exist, left out', name)
  return set(missing)


def label_of_names(names: Sequence[str], class_names: Sequence[str] | None,
                   file: str) -> tuple[list[str], dict[str, int]]:
  """Returns the class names in the order of the labels, and the label of each name.

  Args:
    names: of the classes in the annotation file.
    class_names: the order to follow, as of the training set; None takes that of the file.
    file: for messages.
  Raises:
    UserError: the file has a class that `class_names` lacks.
  """
  order = list(class_names) if class_names is not None else list(names)
  labels = {name: label for label, name in enumerate(order)}
  unknown = [name for name in names if name not in labels]
  if unknown:
    raise UserError(f"'{file}' has {len(unknown)} classes that the training set lacks: "
                    f"{few(unknown)}. For '{unknown[0]}', {did_you_mean(unknown[0], order)}")
  return order, labels
