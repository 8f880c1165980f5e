"""Annotations in COCO's format: one JSON file, and a folder of images.

The file is an object with the lists `images`, `annotations` and `categories`, as described at
https://cocodataset.org/#format-data under "Object Detection". What cannot be used is left out and
counted in `notes` of the source; a file that makes no sense as a whole is an error.
"""
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.sources.annotations import (
    DetectionSource,
    ImageRecord,
    Notes,
    Outline,
    check_box,
    check_image,
    few,
    find_missing,
    label_of_names,
)

_KEYS = ('images', 'annotations', 'categories')
_FORMAT = "an object with the lists 'images', 'annotations' and 'categories'"


def open_coco(annotations: str | os.PathLike, images: str | os.PathLike, *,
              class_names: Sequence[str] | None = None,
              max_missing_fraction: float = 0.01) -> DetectionSource:
  """Opens a COCO annotation file and the folder of its images.

  Labels count the categories in the order of their ids, from 0. Images without objects are kept
  (`DetectionSource.for_training` leaves them out).

  Args:
    annotations: the JSON file.
    images: the folder that `file_name` of each image is relative to.
    class_names: the order of the labels, as of the training set; None takes that of the file.
    max_missing_fraction: of the images that may be missing.
  Raises:
    NotFoundError: no such file or folder, or too many images are missing.
    UserError: the file is not JSON, is cut short, is not in COCO's format, has no images, or has
      classes that `class_names` lacks.
  """
  path = pathlib.Path(annotations).expanduser()
  content, notes = read_annotations(path), Notes()
  categories = _categories(content['categories'], path)
  names = [categories[identity] for identity in sorted(categories)]
  order, labels = label_of_names(names, class_names, str(path))
  label_of_id = {identity: labels[name] for identity, name in categories.items()}
  id_of_name = {name: identity for identity, name in categories.items()}

  entries = _images(content['images'], path, notes)
  missing = find_missing(images, [entry['file_name'] for entry in entries.values()], str(path),
                         max_missing_fraction, notes)
  entries = {identity: entry for identity, entry in entries.items()
             if entry['file_name'] not in missing and _complete_size(entry, images, notes)}
  objects: dict[Any, list] = {identity: [] for identity in entries}
  known = {entry['id'] for entry in content['images']}
  for annotation in content['annotations']:
    identity = _image_of(annotation)
    if identity not in known:
      notes.add('annotations of an image that the file does not list, left out',
                f'image_id {identity}')
    elif identity in objects:
      read = _object(annotation, entries[identity], label_of_id, notes)
      if read is not None:
        objects[identity].append(read)
  records = [_record(entry, objects[identity]) for identity, entry in entries.items()]
  return DetectionSource(
      pathlib.Path(images).expanduser(), records, order, [id_of_name.get(n, -1) for n in order],
      notes.lines(), functools.partial(read_ground_truth, path, tuple(entries)))


def read_annotations(path: str | os.PathLike) -> dict:
  """Returns the content of a COCO annotation file.

  Raises:
    NotFoundError: no such file.
    UserError: not JSON, cut short, or not in COCO's format.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise NotFoundError(f"the annotation file '{path}' does not exist")
  try:
    text = path.read_text(encoding='utf-8-sig')  # tools on Windows write a byte order mark
    content = json.loads(text)
  except UnicodeDecodeError as error:
    raise UserError(f"'{path}' is not JSON: it is not text in UTF-8 ({error})") from error
  except json.JSONDecodeError as error:
    if not text.strip():
      raise UserError(f"'{path}' is empty; expected {_FORMAT}") from error
    if text.lstrip()[0] in '{[' and text.rstrip()[-1] not in '}]':
      raise UserError(f"'{path}' is cut short: it ends within a value, after {len(text)} "
                      'characters; copy or download it again') from error
    raise UserError(f"'{path}' is not JSON, or is cut short: {error}") from error
  if isinstance(content, list):
    raise UserError(f"'{path}' is a list, as files of results are; expected {_FORMAT}")
  lacking = [key for key in _KEYS if not isinstance(content, dict) or
             not isinstance(content.get(key), list)]
  if lacking:
    raise UserError(f"'{path}' has no list {few(map(repr, lacking))}; expected {_FORMAT}")
  if not content['images']:
    raise UserError(f"'{path}' lists no images")
  if not content['categories']:
    raise UserError(f"'{path}' lists no categories, so there is nothing to detect")
  if content['annotations'] and not any(
      'bbox' in annotation for annotation in content['annotations']
      if isinstance(annotation, dict)):
    raise UserError(f"no annotation of '{path}' has a 'bbox'; is it a file of captions?")
  return content


def read_ground_truth(path: str | os.PathLike, image_ids: Sequence[Any]) -> dict:
  """Returns the annotations of `image_ids` as the file has them, for evaluation.

  Left out are annotations that no detection can match: of other images or unknown categories,
  without a box of finite numbers, or with a box of no area. The rest is as pycocotools reads it.
  """
  content = read_annotations(path)
  kept = set(image_ids)
  categories = {entry['id'] for entry in content['categories']}
  images = {entry['id']: entry for entry in content['images']
            if entry['id'] in kept}
  annotations = [
      _with_sound_outline(annotation, images[annotation['image_id']])
      for annotation in content['annotations']
      if _image_of(annotation) in kept and isinstance(annotation.get('category_id'), int)
      and annotation['category_id'] in categories
      and (box := _box(annotation)) is not None and np.isfinite(box).all() and min(box[2:]) > 0]
  return {'images': list(images.values()), 'annotations': annotations,
          'categories': content['categories']}


def _with_sound_outline(annotation: dict, image: dict) -> dict:
  """Returns the annotation without the parts of its outline that pycocotools cannot read."""
  outline = annotation.get('segmentation')
  if isinstance(outline, dict):
    size = image.get('height'), image.get('width')
    sound = outline if None in size or _run_lengths(outline, size) is not None else None
  else:
    sound = [polygon for polygon in _polygons(outline) if _points(polygon) is not None
             and len(polygon) >= 6]
  return {**annotation, 'segmentation': sound}


def _polygons(outline: Any) -> list:
  return outline if isinstance(outline, list) else []


def _points(polygon: Any) -> np.ndarray | None:
  """Returns x and y of a polygon in turn.

  None if it is no list of pairs of finite numbers; empty if it has fewer than three points.
  """
  try:
    points = np.asarray(polygon, np.float64)
  except (TypeError, ValueError):
    return None
  if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
    return None
  return points if len(points) >= 6 else points[:0]


def _categories(entries: list, path: pathlib.Path) -> dict[int, str]:
  """Returns the name of each category id; refuses ids and names that occur twice."""
  names: dict[int, str] = {}
  for entry in entries:
    if not isinstance(entry, dict) or not isinstance(entry.get('id'), int) or not entry.get('name'):
      raise UserError(f"'{path}' has the category {entry!r}; each needs an integer 'id' and a "
                      "'name'")
    name = str(entry['name'])
    if names.get(entry['id'], name) != name:
      raise UserError(f"'{path}' has two categories of id {entry['id']}: "
                      f"'{names[entry['id']]}' and '{name}'")
    names[entry['id']] = name
  twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
  if twice:
    raise UserError(f"'{path}' has more than one category called {few(map(repr, twice))}; "
                    'rename or merge them')
  return names


def _images(entries: list, path: pathlib.Path, notes: Notes) -> dict[Any, dict]:
  """Returns the images by id; refuses two different ones of one id."""
  images: dict[Any, dict] = {}
  for entry in entries:
    if (not isinstance(entry, dict) or not isinstance(entry.get('id'), int | str)
        or not entry.get('file_name')):
      raise UserError(f"'{path}' has the image {entry!r}; each needs an 'id' (a number or a text) "
                      "and a 'file_name'")
    identity, name = entry['id'], str(entry['file_name'])
    if identity not in images:
      images[identity] = {**entry, 'file_name': name}
    elif images[identity]['file_name'] == name:
      notes.add('images that are listed twice, of which the first entry counts', name)
    else:
      other = images[identity]['file_name']
      raise UserError(f"'{path}' gives the image id {identity} to '{other}' and to '{name}'; ids "
                      'must differ')
  return images


def _complete_size(entry: dict, folder: str | os.PathLike, notes: Notes) -> bool:
  """Reads the size of an image out of its file where the annotations lack it."""
  if entry.get('height') is None or entry.get('width') is None:
    try:
      with Image.open(pathlib.Path(folder).expanduser() / entry['file_name']) as image:
        entry['width'], entry['height'] = image.size
    except OSError:
      notes.add('images that cannot be read, left out', entry['file_name'])
      return False
  for side in ('height', 'width'):
    if isinstance(entry[side], float) and entry[side].is_integer():
      entry[side] = int(entry[side])
  return check_image((entry['height'], entry['width']), entry['file_name'], notes)


def _image_of(annotation: Any) -> int | str | None:
  identity = annotation.get('image_id') if isinstance(annotation, dict) else None
  return identity if isinstance(identity, int | str) else None


def _box(annotation: dict) -> list[float] | None:
  """Returns x, y, width, height, or None where the annotation has no four numbers."""
  box = annotation.get('bbox')
  if not isinstance(box, list) or len(box) != 4:
    return None
  try:
    return [float(number) for number in box]
  except (TypeError, ValueError):
    return None


def _object(annotation: dict, image: dict, label_of_id: dict[int, int],
            notes: Notes) -> tuple | None:
  """Returns (box, label, crowd, area, outline) of a usable annotation, or None."""
  name = image['file_name']
  category = annotation.get('category_id')
  if not isinstance(category, int) or category not in label_of_id:
    notes.add('annotations of an unknown category, left out', f'{name}: category_id {category}')
    return None
  numbers = _box(annotation)
  if numbers is None:
    notes.add("annotations without a 'bbox' of four numbers, left out", name)
    return None
  x, y, width, height = numbers
  size = image['height'], image['width']
  box = check_box((x, y, x + width, y + height), size, name, notes)
  if box is None:
    return None
  area = annotation.get('area')
  if not isinstance(area, int | float) or not np.isfinite(area) or area <= 0:
    area = float((box[2] - box[0]) * (box[3] - box[1]))
  return (box, label_of_id[category], bool(annotation.get('iscrowd', 0)), area,
          read_outline(annotation.get('segmentation'), size, name, notes))


def read_outline(segmentation: Any, size: tuple[int, int], name: str, notes: Notes) -> Outline:
  """Returns an outline out of COCO's `segmentation`; None, noted, for one that cannot be used.

  Args:
    segmentation: a list of polygons, or a run-length code with counts as a list or compressed.
    size: (height, width) of the image.
    name: of the image.
    notes: counts what is wrong.
  """
  if not segmentation:
    return None
  if isinstance(segmentation, dict):
    code = _run_lengths(segmentation, size)
    if code is None:
      notes.add('run-length codes that do not fit their image, left out', name)
    return code
  polygons = []
  for polygon in _polygons(segmentation):
    points = _points(polygon)
    if points is None:
      notes.add('polygons that are no list of finite x and y, left out', name)
    elif not len(points):
      notes.add('polygons of fewer than three points, left out', name)
    else:
      polygons.append(_fifths(points))
  return tuple(polygons) or None


def _fifths(points: np.ndarray) -> np.ndarray:
  """Rounds coordinates as COCO's rasteriser does: to trunc(5 x + .5) / 5.

  It would round .1 up or down by the last bit; afterwards float32 and shifts by whole pixels change
  no bitmap. Below zero, three quarters of a fifth keep the truncation where it was.
  """
  fifths = np.trunc(5 * points + 0.5)
  return (np.where(fifths < 0, fifths - 0.75, fifths) / 5).astype(np.float32)


def _run_lengths(code: dict, size: tuple[int, int]) -> dict | None:
  """Returns a run-length code that is sound, its counts a list or compressed bytes."""
  counts = code.get('counts')
  if list(code.get('size') or ()) != list(size):
    return None
  if isinstance(counts, list):
    good = all(isinstance(run, int) and run >= 0 for run in counts)
    return ({'size': list(size), 'counts': counts}
            if good and sum(counts) == size[0] * size[1] else None)
  if not isinstance(counts, str) or not counts.isascii():
    return None
  if decompressed_length(counts) != size[0] * size[1]:
    return None
  return {'size': list(size), 'counts': counts.encode()}


def decompressed_length(counts: str) -> int:
  """Returns the pixels that compressed counts cover, -1 where they are damaged.

  The decoder in C trusts what it is given, so a damaged code must not reach it. Six bits of a
  character, less 48: five of a number, the sixth says that more follow; from the fourth number
  on it is the difference to the last but one.
  """
  runs: list[int] = []
  value = shift = 0
  for character in counts.encode():
    bits = character - 48
    if not 0 <= bits < 64 or shift > 30:
      return -1
    value |= (bits & 31) << shift
    shift += 5
    if not bits & 32:
      if bits & 16:
        value -= 1 << shift
      runs.append(value + (runs[-2] if len(runs) > 2 else 0))
      if runs[-1] < 0:
        return -1
      value = shift = 0
  return -1 if shift else sum(runs)


def _record(image: dict, objects: list[tuple]) -> ImageRecord:
  columns = list(zip(*objects)) or [()] * 5
  return ImageRecord(
      image['id'], image['file_name'], (image['height'], image['width']),
      np.asarray(columns[0], np.float32).reshape(-1, 4), np.asarray(columns[1], np.int32),
      np.asarray(columns[2], bool), np.asarray(columns[3], np.float32), tuple(columns[4]))
