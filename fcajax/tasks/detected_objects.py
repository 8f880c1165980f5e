"""The objects that a trained detector finds in image files."""
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fcajax.analysis.draw_detections import draw_detections
from fcajax.inference.detect import detections_function, original_detections, resize_rule
from fcajax.inference.open_model import Loaded
from fcajax.inference.read_images import decode_files
from fcajax.preprocessing.decode import decode_image, decode_region
from fcajax.preprocessing.keep_aspect import bucket_of, bucket_shapes, resized_size
from fcajax.tasks.base import Prediction
from fcajax.tasks.coco_metrics import ImageDetections, result_rows
from fcajax.typing import Float, Int, UInt8


@dataclasses.dataclass(frozen=True)
class DetectedObjects(Prediction):
  """The objects of one image, the surest first.

  Attributes:
    class_names: in the order of the labels.
    boxes: corners x1, y1, x2, y2 in pixels of the image.
    scores: 0 to 1.
    labels: indices in `class_names`.
    masks: run-length codes of the image's size; None without masks.
    category_ids: of each label in COCO's format of results.
  """
  class_names: Sequence[str]
  boxes: Float[np.ndarray, 'n 4']
  scores: Float[np.ndarray, ' n']
  labels: Int[np.ndarray, ' n']
  masks: Sequence[dict] | None
  category_ids: Sequence[int]

  def to_dict(self) -> dict[str, Any]:
    """Boxes are x, y, width, height, and masks COCO's run-length codes."""
    objects = []
    for i, (box, score, label) in enumerate(zip(self.boxes, self.scores, self.labels)):
      x1, y1, x2, y2 = map(float, box)
      entry = {'class': self.class_names[label], 'score': round(float(score), 6),
               'box': [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]}
      if self.masks is not None:
        entry['mask'] = self.masks[i]
      objects.append(entry)
    return {'image': str(self.file), 'objects': objects}

  def text(self) -> str:
    """Names, scores, and corners in whole pixels."""
    objects = [f'{self.class_names[label]} {score:.2f} at {" ".join(f"{v:.0f}" for v in box)}'
               for box, score, label in zip(self.boxes, self.scores, self.labels)]
    return '; '.join(objects) or 'no object'

  def results(self, image_id: int) -> list[dict[str, Any]]:
    """Categories are numbered as the annotations did that the network was trained on."""
    found = ImageDetections(image_id, self.boxes, self.scores, self.labels, self.masks)
    return result_rows([found], self.category_ids)

  def draw(self) -> UInt8[np.ndarray, 'h w 3']:
    """Returns the image, RGB, with outlines, names and scores."""
    return draw_detections(decode_image(self.file), self.boxes, self.labels, self.class_names,
                           self.scores, self.masks)


def detect_files(opened: Loaded, files: Sequence[pathlib.Path], *, min_score: float,
                 batch_size: int, named: Iterable[str | pathlib.Path] | None
                 ) -> Iterator[DetectedObjects]:
  """Yields the objects of each image file, in order; see `Detection.predict`."""
  rule, run = resize_rule(opened), jax.jit(detections_function(opened))
  shapes = bucket_shapes(rule)
  # Those of imported weights are not known: labels from 1 on, as most annotation tools count.
  category_ids = opened.metadata.get('category_ids') or range(1, len(opened.class_names) + 1)
  rules = getattr(opened.model, 'rule_set', None)
  paste = 'mmdet' if rules is None else rules.paste
  files = [pathlib.Path(file) for file in files]
  size = min(batch_size, len(files))
  images = decode_files(files, named, lambda file: _load(file, rule, shapes))
  while group := list(itertools.islice(images, size)):
    buckets = [bucket_of(original, rule) for _, (original, _) in group]
    found = {}
    for bucket in sorted(set(buckets)):
      chosen = [i for i, own in enumerate(buckets) if own == bucket]
      # Filled up to one size, so that every shape is compiled once.
      rows = chosen + chosen[-1:] * (size - len(chosen))
      originals, pixels = zip(*(group[i][1] for i in rows))
      sizes = np.array([resized_size(original, rule) for original in originals], np.int32)
      outputs = jax.device_get(run(opened.variables, np.stack(pixels), sizes))
      for row, i in enumerate(chosen):
        found[i] = {name: values[row] for name, values in outputs.items()}
    for i, (file, (original, _)) in enumerate(group):
      scale = np.divide(resized_size(original, rule), original).astype(np.float32)
      yield DetectedObjects(file, opened.class_names, *original_detections(
          found[i], scale, original, paste, min_score), category_ids)


def _load(file, rule, shapes):
  sizes = []

  def choose(found):
    sizes.append(tuple(map(int, found)))
    height, width = resized_size(sizes[-1], rule)
    return (0, 0, *found), (height * rule.enlarge, width * rule.enlarge)

  pixels, _ = decode_region(file.read_bytes(), choose)
  return sizes[0], rule.load(pixels, sizes[0], shapes[bucket_of(sizes[0], rule)])
