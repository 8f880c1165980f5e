"""The detections of a whole evaluation: gathered from all processes, judged, written, drawn."""
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fcajax import distributed, files
from fcajax.analysis.draw_detections import draw_detections, picture_grid
from fcajax.inference.detect import original_detections
from fcajax.tasks.base import Collector
from fcajax.tasks.coco_metrics import ImageDetections, coco_metrics, result_rows

RESULTS = 'detections.json'
PICTURE = 'predictions.png'
_PICTURES = 8
_WIDTH = 400


class Detections(Collector):
  """Collects the detections of all images in pixels of the original ones.

  Args:
    data_set: has `image_ids`, `category_ids`, `ground_truth()` and `evaluation.original(index)`.
    class_names: in the order of the labels.
    paste: rule by which masks come into the image, see `fcajax.ops.masks.paste_mask`.
    per_class: whether metrics of every class are reported too.
    picture_score: detections with a lower score are not drawn.
  """

  def __init__(self, data_set: Any, class_names: Sequence[str], *, paste: str,
               per_class: bool, picture_score: float):
    self._data_set, self._class_names = data_set, list(class_names)
    self._paste = paste
    self._per_class, self._picture_score = per_class, picture_score
    self._rows: list[list] = []
    self._found: list[ImageDetections] = []

  def keep(self, batch: Mapping[str, np.ndarray]) -> Any:
    return {name: np.array(batch[name]) for name in ('index', 'mask', 'original_size', 'scale')}

  def add(self, kept: Any, rows: Mapping[str, np.ndarray]) -> None:
    for i in np.flatnonzero(kept['mask'] > 0):
      one = {name: values[i] for name, values in rows.items()}
      boxes, scores, labels, masks = original_detections(
          one, kept['scale'][i], tuple(kept['original_size'][i].tolist()), self._paste)
      self._rows.append([int(kept['index'][i]), boxes.tolist(), scores.tolist(), labels.tolist(),
                         masks])

  def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
    rows = {row[0]: row for row in distributed.gather(self._rows)}
    ids = self._data_set.image_ids
    # In the order of the data, so that metrics do not depend on the number of processes.
    self._found = [
        ImageDetections(ids[index], np.array(boxes, np.float32).reshape(-1, 4),
                        np.array(scores, np.float32), np.array(labels, np.int64), masks)
        for index, boxes, scores, labels, masks in (rows[index] for index in sorted(rows))]
    truth = self._data_set.ground_truth()
    results = result_rows(self._found, self._data_set.category_ids)
    values = super().metrics(sums)
    kinds = ['box']
    if any(image.masks is not None for image in self._found) and any(
        entry.get('segmentation') for entry in truth['annotations']):
      kinds.append('mask')
    for kind in kinds:
      values |= coco_metrics(truth, results, kind, image_ids=ids, per_class=self._per_class)
    return values

  def draw(self, directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes `detections.json`, in COCO's format of results, and `predictions.png`."""
    rows = result_rows(self._found, self._data_set.category_ids)
    files.write_text(directory / RESULTS, json.dumps(rows) + '\n')
    if self._found:
      Image.fromarray(self._picture()).save(directory / PICTURE)
      return [directory / PICTURE]
    return []

  def _picture(self) -> np.ndarray:
    """Returns a few images with their truth beside their detections."""
    index_of = {image_id: i for i, image_id in enumerate(self._data_set.image_ids)}
    pairs = []
    for found in self._found[:_PICTURES]:
      pixels, record, masks = self._data_set.evaluation.original(index_of[found.image_id])
      names = self._class_names
      truth = draw_detections(
          pixels, record.boxes, record.labels, names,
          masks=masks if found.masks is not None else None)
      pairs.append((truth, draw_detections(
          pixels, found.boxes, found.labels, names, found.scores, found.masks,
          self._picture_score)))
    # Two pairs in a row: truth, detections, truth, detections.
    rows = [sum(pairs[i:i + 2], ()) for i in range(0, len(pairs), 2)]
    return picture_grid(rows, _WIDTH)
