"""Annotations of Pascal VOC: a folder with Annotations/*.xml and JPEGImages/.

`ImageSets/Main/SPLIT.txt` names the images of a split, one a line; without such files all of
`Annotations` belongs to one split. Boxes count pixels from 1 and include the last one, so an
object covers xmin - 1 to xmax. Difficult objects are left out of training and evaluation, as the
VOC protocol does. There are no outlines.
"""
import os
import pathlib
import xml.etree.ElementTree
from collections.abc import Sequence

import numpy as np

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.sources.annotations import (
    DetectionSource,
    ImageRecord,
    Notes,
    check_box,
    check_image,
    few,
    find_missing,
    label_of_names,
)

CLASSES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor')
"""The classes of Pascal VOC 2007 to 2012, in the order of their names."""

_LAYOUT = 'expected ROOT/Annotations/*.xml and ROOT/JPEGImages/*.jpg'


def open_voc(root: str | os.PathLike, split: str = '', *,
             class_names: Sequence[str] | None = None,
             max_missing_fraction: float = 0.01) -> DetectionSource:
  """Opens a folder in the layout of Pascal VOC.

  Args:
    root: holds Annotations/ and JPEGImages/, as VOC2012 does.
    split: a file of ImageSets/Main without '.txt', as 'train'; '' takes all annotations.
    class_names: the order of the labels; None takes VOC's 20 classes if there are no others, else
      the names that occur, sorted.
    max_missing_fraction: of the images that may be missing, and of the files that may be damaged.
  Raises:
    NotFoundError: no such folder or split, or too many images are missing.
    UserError: no annotations, too many damaged ones, or classes that `class_names` lacks.
  """
  root, notes = pathlib.Path(root).expanduser(), Notes()
  folder = root / 'Annotations'
  if not folder.is_dir():
    raise NotFoundError(f"'{root}' has no folder Annotations; {_LAYOUT}")
  stems = _stems(root, split)
  parsed = [entry for stem in stems
            if (entry := _read(folder / f'{stem}.xml', notes)) is not None]
  if len(stems) - len(parsed) > max_missing_fraction * len(stems) or not parsed:
    raise UserError(f"{len(stems) - len(parsed)} of {len(stems)} annotation files in '{folder}' "
                    f'cannot be used. {"; ".join(notes.lines())}')
  names = sorted({name for entry in parsed for name, *_ in entry[2]})
  if not names:
    raise UserError(f"no object is annotated in '{folder}', so there is nothing to detect")
  if class_names is None and set(names) <= set(CLASSES):
    class_names = CLASSES
  order, labels = label_of_names(names, class_names, str(folder))

  images = root / 'JPEGImages'
  missing = find_missing(images, [entry[0] for entry in parsed], str(folder),
                         max_missing_fraction, notes)
  records = [_record(i, *entry, labels, notes) for i, entry in enumerate(parsed)
             if entry[0] not in missing]
  return DetectionSource(images, records, order, list(range(1, len(order) + 1)), notes.lines(),
                         _GroundTruth(records, order))


class _GroundTruth:
  """Writes the records in COCO's format when it is called; a class, so that it can be pickled."""

  def __init__(self, records: list[ImageRecord], class_names: list[str]):
    self._records, self._class_names = records, class_names

  def __call__(self) -> dict:
    annotations = []
    for record in self._records:
      for box, label, crowd in zip(record.boxes.astype(float), record.labels, record.crowd):
        x, y, width, height = *box[:2], *(box[2:] - box[:2])
        annotations.append({
            'id': len(annotations) + 1, 'image_id': record.image_id, 'category_id': int(label) + 1,
            'bbox': [float(x), float(y), float(width), float(height)],
            'area': float(width * height), 'iscrowd': int(crowd)})
    return {
        'images': [{'id': record.image_id, 'file_name': record.name, 'height': record.size[0],
                    'width': record.size[1]} for record in self._records],
        'annotations': annotations,
        'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(self._class_names)]}


def _stems(root: pathlib.Path, split: str) -> list[str]:
  """Returns the names of a split's images without their endings."""
  folder = root / 'Annotations'
  if not split:
    stems = sorted(path.stem for path in folder.glob('*.xml'))
    if not stems:
      raise UserError(f"no annotations in '{folder}'; {_LAYOUT}")
    return stems
  sets = root / 'ImageSets' / 'Main'
  path = sets / f'{split}.txt'
  if not path.is_file():
    known = sorted(other.stem for other in sets.glob('*.txt') if '_' not in other.stem)
    raise NotFoundError(f"'{path}' does not exist; splits there are {few(known) or 'none'}")
  stems = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
  if not stems:
    raise UserError(f"'{path}' names no images")
  return stems


def _read(path: pathlib.Path, notes: Notes) -> tuple | None:
  """Returns (file name, (height, width), objects) of an annotation file, or None, noted.

  An object is (name, difficult, (xmin, ymin, xmax, ymax)) as written.
  """
  try:
    tree = xml.etree.ElementTree.parse(path).getroot()
  except OSError:
    notes.add('annotation files that do not exist, left out', path.name)
    return None
  except xml.etree.ElementTree.ParseError as error:
    notes.add('annotation files that are damaged or cut short, left out', f'{path.name}: {error}')
    return None
  name = (tree.findtext('filename') or f'{path.stem}.jpg').strip()
  try:
    size = int(float(tree.findtext('size/height'))), int(float(tree.findtext('size/width')))
  except (TypeError, ValueError):
    size = 0, 0
  if not check_image(size, path.name, notes):
    return None
  objects = []
  for entry in tree.findall('object'):
    label = (entry.findtext('name') or '').strip()
    try:
      corners = tuple(float(entry.findtext(f'bndbox/{side}'))
                      for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    except (TypeError, ValueError):
      corners = None
    if not label or corners is None:
      notes.add('objects without a name or a box of four numbers, left out', path.name)
      continue
    objects.append((label, (entry.findtext('difficult') or '0').strip() == '1', corners))
  return name, size, objects


def _record(image_id: int, name: str, size: tuple[int, int], objects: list[tuple],
            labels: dict[str, int], notes: Notes) -> ImageRecord:
  rows = []
  for label, difficult, (left, top, right, bottom) in objects:
    box = check_box((left - 1, top - 1, right, bottom), size, name, notes)
    if box is not None:
      rows.append((box, labels[label], difficult))
  boxes = np.asarray([row[0] for row in rows], np.float32).reshape(-1, 4)
  sides = boxes[:, 2:] - boxes[:, :2]
  return ImageRecord(
      image_id, name, size, boxes, np.asarray([row[1] for row in rows], np.int32),
      np.asarray([row[2] for row in rows], bool), sides[:, 0] * sides[:, 1], (None,) * len(rows))
