"""Persons with keypoints out of COCO's format, and person boxes out of a detector's JSON.

The annotation file is described at https://cocodataset.org/#format-data under "Keypoint Detection".
"Person" stands for whatever the category is: the names of the joints come from the file.
What cannot be used is left out, counted and named in `Notes`.
"""
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcajax.errors import NotFoundError, UserError, did_you_mean
from fcajax.input_pipeline.sources.annotations import Notes, check_image, few, find_missing
from fcajax.input_pipeline.sources.coco import read_annotations
from fcajax.preprocessing.person_crop import clip_boxes
from fcajax.preprocessing.skeleton import Skeleton
from fcajax.tasks.keypoint_metrics import KeypointTruth
from fcajax.typing import Float, Int


@dataclasses.dataclass(frozen=True)
class Images:
  """The images of a split.

  Attributes:
    folder: that `names` are relative to.
    names: of the files.
    ids: as the annotation file has them.
    sizes: (height, width).
  """
  folder: str
  names: tuple[str, ...]
  ids: tuple[Any, ...]
  sizes: Int[np.ndarray, 'm 2']

  def path(self, index: int) -> str:
    """Returns the path of an image file."""
    return os.path.join(self.folder, self.names[index])


@dataclasses.dataclass(frozen=True)
class Persons:
  """The persons to cut out, one a row.

  Attributes:
    images: that they are in.
    image: index of each person's image.
    boxes: x, y, width, height in pixels.
    keypoints: x, y and visibility (0 is not labelled); all 0 for a detector's boxes.
    scores: of the boxes; 1 for annotated ones.
  """
  images: Images
  image: Int[np.ndarray, ' n']
  boxes: Float[np.ndarray, 'n 4']
  keypoints: Float[np.ndarray, 'n k 3']
  scores: Float[np.ndarray, ' n']

  def __len__(self) -> int:
    return len(self.image)

  def name(self, index: int) -> str:
    """Returns what a person is called in messages: the image file and the box."""
    x, y, width, height = self.boxes[index]
    return f'{self.images.names[self.image[index]]}, box {x:.0f} {y:.0f} {width:.0f} {height:.0f}'


class AnnotatedPersons:
  """An annotation file: its skeleton, the persons to train on, and the truth to evaluate against.

  Args:
    annotations: the JSON file.
    folder: of the images.
    category: whose keypoints are read; '' takes the only one that has some.
    flip_pairs, sigmas: in place of the file's; see `Skeleton.of_category`.
    max_missing_fraction: of the images that may be missing.

  Attributes:
    skeleton: of the category.
    category_id: of the category.
    notes: what was found wrong.

  Raises:
    NotFoundError: no such file or folder, or too many images are missing.
    UserError: the file is not in COCO's keypoint format, or no person can be used.
  """

  def __init__(self, annotations: str | os.PathLike, folder: str | os.PathLike, *,
               category: str = '', flip_pairs: Any = None, sigmas: Any = None,
               max_missing_fraction: float = 0.01):
    path = pathlib.Path(annotations).expanduser()
    content, self.notes = read_annotations(path), Notes()
    entry = _find_category(content['categories'], category, path)
    self.skeleton = Skeleton.of_category(entry, flip_pairs, sigmas)
    self.category_id = entry['id']
    self._path = path
    self._images, self._index = self._read_images(content['images'], folder, max_missing_fraction)
    self._rows = [annotation for annotation in content['annotations']
                  if isinstance(annotation, dict)
                  and annotation.get('category_id') == self.category_id]
    self._listed = {image['id'] for image in content['images']}

  def _read_images(self, entries, folder, max_missing_fraction):
    """Returns the images that exist, and the index of each id."""
    for entry in entries:
      lacking = [key for key in ('id', 'file_name', 'height', 'width')
                 if not isinstance(entry, dict) or entry.get(key) in (None, '')]
      if lacking:
        raise UserError(f"'{self._path}' has the image {entry!r} without {few(map(repr, lacking))}")
      if not isinstance(entry['id'], int | str):
        raise UserError(f"'{self._path}' has the image {entry!r}; its 'id' must be a number or a "
                        'text')
    names = [str(entry['file_name']) for entry in entries]
    missing = find_missing(folder, names, str(self._path), max_missing_fraction, self.notes)
    kept = [entry for entry in entries if str(entry['file_name']) not in missing
            and check_image(_size(entry), str(entry['file_name']), self.notes)]
    images = Images(
        str(pathlib.Path(folder).expanduser()), tuple(str(entry['file_name']) for entry in kept),
        tuple(entry['id'] for entry in kept),
        np.array([_size(entry) for entry in kept], np.int64).reshape(-1, 2))
    index = {identity: number for number, identity in enumerate(images.ids)}
    if len(index) != len(images.ids):
      twice = sorted({str(i) for i in images.ids if images.ids.count(i) > 1})
      raise UserError(f"'{self._path}' gives an image id twice: {few(twice)}; ids must differ")
    return images, index

  def _image_of(self, row: Mapping[str, Any]) -> int | None:
    """Returns the index of an annotation's image, or None where it is not listed or missing."""
    identity = row.get('image_id')
    if not isinstance(identity, int | str) or identity not in self._listed:
      self.notes.add('annotations of an image that the file does not list, left out',
                     f'image_id {identity}')
      return None
    return self._index.get(identity)

  def persons(self, *, training: bool) -> Persons:
    """Returns the persons with a labelled joint and a box with an area, without crowds.

    They stand by image in the order of the file. Boxes are cut at the border of the image.

    Args:
      training: joints outside of the image count as not labelled.
    """
    found = [(image, row) for row in self._rows if (image := self._image_of(row)) is not None]
    found.sort(key=lambda pair: pair[0])
    kept = [(image, box, points) for image, row in found
            if (usable := self._usable(row, image)) is not None
            for box, points in (usable,)]
    if not kept:
      raise UserError(f"'{self._path}' has no person to use: "
                      f"{'; '.join(self.notes.lines()) or 'it has no annotations of the category'}")
    image = np.array([entry[0] for entry in kept], np.int64)
    boxes = clip_boxes(np.array([entry[1] for entry in kept]), self._images.sizes[image])
    keypoints = np.stack([entry[2] for entry in kept])
    if training:
      keypoints[self._outside(keypoints, image), 2] = 0
    seen = (keypoints[:, :, 2] > 0).any(axis=1)
    return Persons(self._images, image[seen], boxes[seen], keypoints[seen], np.ones(seen.sum()))

  def _usable(self, row, image):
    """Returns (box, keypoints) of an annotation to cut out, or None; notes why not."""
    name, notes = self._images.names[image], self.notes
    if row.get('iscrowd'):
      return None
    points = self._keypoints(row)
    if points is None:
      notes.add(f'persons without {len(self.skeleton.names)} joints of x, y and visibility, left '
                'out', f'{name}: annotation {row.get("id")}')
      return None
    if not (points[:, 2] > 0).any():
      notes.add('persons without a labelled joint, left out', name)
      return None
    box = _box(row)
    if box is None:
      notes.add("persons without a 'bbox' of four finite numbers, left out", name)
      return None
    if min(box[2:]) <= 0 or _area(row, box) <= 0:
      notes.add('boxes of no area, left out', name)
      return None
    width_height = clip_boxes(box[None], self._images.sizes[image][None])[0, 2:]
    if min(width_height) < 0 or max(width_height) == 0:
      notes.add('boxes wholly outside their image, left out', name)
      return None
    return box, points

  def _keypoints(self, row: Mapping[str, Any]) -> Float[np.ndarray, 'k 3'] | None:
    values = row.get('keypoints')
    try:
      points = np.asarray(values, np.float64)
    except (TypeError, ValueError):
      return None
    if points.shape != (3 * len(self.skeleton.names),):
      return None
    points = points.reshape(-1, 3)
    labelled = points[points[:, 2] > 0]
    return points if np.isfinite(labelled).all() else None

  def _outside(self, keypoints, image):
    """Returns which labelled joints lie outside of their image, and notes them."""
    limit = self._images.sizes[image][:, None, ::-1]
    # Annotation tools round: up to a pixel outside is no mistake.
    inside = (keypoints[:, :, :2] >= -1) & (keypoints[:, :, :2] <= limit)
    outside = (keypoints[:, :, 2] > 0) & ~inside.all(axis=-1)
    for row in np.flatnonzero(outside.any(axis=1)):
      self.notes.add('joints outside of their image, not labelled in training',
                     self._images.names[image[row]], int(outside[row].sum()))
    return outside

  def truth(self) -> KeypointTruth:
    """Returns all annotations of the category, also crowds and persons without joints.

    `image_ids` are the ranks of the images' ids: pycocotools goes through images in that order.
    """
    count = len(self.skeleton.names)
    columns = []
    for row in self._rows:
      box, identity = _box(row), row.get('image_id')
      image = self._index.get(identity) if isinstance(identity, int | str) else None
      if box is None or image is None:
        continue
      points = self._keypoints(row)
      area = _area(row, box)
      columns.append((image, np.zeros((count, 3)) if points is None else points, box, area,
                      bool(row.get('iscrowd', 0))))
    image, points, boxes, areas, crowd = zip(*columns)
    return KeypointTruth(
        self.ranks[np.array(image)], np.stack(points), np.stack(boxes), np.array(areas),
        np.array(crowd))

  @property
  def ranks(self) -> Int[np.ndarray, ' m']:
    """The rank of each image's id among all ids."""
    return np.unique(np.array(self._images.ids), return_inverse=True)[1]

  def detected(self, file: str | os.PathLike, min_score: float = 0.0) -> Persons:
    """Reads a detector's boxes: a list of {'image_id', 'category_id', 'bbox', 'score'}.

    Args:
      file: JSON as written for COCO's box evaluation.
      min_score: boxes below it are left out; the published protocol leaves out none.

    Raises:
      NotFoundError: no such file.
      UserError: it is no such list, or no box is left.
    """
    path, kept = pathlib.Path(file).expanduser(), []
    for row in _read_results(path):
      if row.get('category_id', self.category_id) != self.category_id:
        continue
      image = self._image_of(row)
      if image is None or row['score'] < min_score:
        continue
      box, name = _box(row), self._images.names[image]
      if box is None or min(box[2:]) <= 0:
        self.notes.add('detected boxes of no area, left out', name)
        continue
      kept.append((image, box, float(row['score'])))
    if not kept:
      raise UserError(f"'{path}' has no box of category {self.category_id} and a score of at least "
                      f"{min_score} on the images of '{self._path}'. "
                      f"{'; '.join(self.notes.lines())}")
    kept.sort(key=lambda entry: entry[0])
    image, boxes, scores = zip(*kept)
    keypoints = np.zeros((len(kept), len(self.skeleton.names), 3))
    return Persons(self._images, np.array(image), np.stack(boxes), keypoints, np.array(scores))


def _find_category(entries: Sequence[Any], name: str, path: pathlib.Path) -> Mapping[str, Any]:
  """Returns the category called `name`, or the only one that has keypoints."""
  jointed = {str(entry.get('name')): entry for entry in entries
             if isinstance(entry, dict) and entry.get('keypoints') and 'id' in entry}
  if not jointed:
    raise UserError(f"no category of '{path}' has 'keypoints' (a list of the joints' names); a "
                    'file of keypoints, such as person_keypoints_train2017.json, is needed')
  if name:
    if name not in jointed:
      raise UserError(f"'{path}' has no category {name!r} with keypoints: "
                      f'{did_you_mean(name, jointed)}')
    return jointed[name]
  if len(jointed) > 1:
    raise UserError(f"'{path}' has {len(jointed)} categories with keypoints: {few(jointed)}; "
                    'choose one with data.category')
  return next(iter(jointed.values()))


def _size(entry: Mapping[str, Any]) -> tuple[Any, Any]:
  """Returns (height, width) as the file has them; 480.0 counts as 480."""
  return tuple(int(side) if isinstance(side, float) and side.is_integer() else side
               for side in (entry['height'], entry['width']))


def _area(row: Mapping[str, Any], box: Float[np.ndarray, '4']) -> float:
  """Returns the area of a person; that of its box where the file has no finite number."""
  area = row.get('area')
  if isinstance(area, int | float) and np.isfinite(area):
    return float(area)
  return float(box[2] * box[3])


def _box(row: Mapping[str, Any]) -> Float[np.ndarray, '4'] | None:
  try:
    box = np.asarray(row.get('bbox'), np.float64)
  except (TypeError, ValueError):
    return None
  return box if box.shape == (4,) and np.isfinite(box).all() else None


def _read_results(path: pathlib.Path) -> list[dict]:
  if not path.is_file():
    raise NotFoundError(f"the file of detected boxes '{path}' does not exist")
  try:
    rows = json.loads(path.read_text(encoding='utf-8-sig'))
  except ValueError as error:
    raise UserError(f"'{path}' is not JSON, or is cut short: {error}") from error
  needed = ('image_id', 'bbox', 'score')
  good = isinstance(rows, list) and all(
      isinstance(row, dict) and all(key in row for key in needed)
      and isinstance(row['score'], int | float) for row in rows)
  if not good:
    raise UserError(f"'{path}' is not a list of objects with {', '.join(needed)}, as detectors are "
                    'evaluated on')
  return rows
