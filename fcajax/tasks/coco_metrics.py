"""COCO's metrics of detections: the twelve numbers for boxes and for masks, by pycocotools."""
import contextlib
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from fcajax.errors import UserError
from fcajax.preprocessing.run_lengths import coco_masks
from fcajax.typing import Float, Int

METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
"""In the order of pycocotools: average precision over IoU .5 to .95, at .5, at .75, of small
(below 32 x 32 pixels), medium and large (above 96 x 96) objects; average recall with 1, 10 and 100
detections an image, and by size. -1 where there is no such object."""


@dataclasses.dataclass(frozen=True)
class ImageDetections:
  """What was found in one image.

  Attributes:
    image_id: as the annotations have it.
    boxes: corners x1, y1, x2, y2 in pixels of the original image.
    scores: confidence of each.
    labels: indices of classes.
    masks: a run-length code of each, of the original image's size; None without masks. See
      `fcajax.preprocessing.run_lengths.encode_masks`.
  """
  image_id: Any
  boxes: Float[np.ndarray, 'n 4']
  scores: Float[np.ndarray, ' n']
  labels: Int[np.ndarray, ' n']
  masks: Sequence[dict] | None = None


def result_rows(detections: Iterable[ImageDetections], category_ids: Sequence[int]) -> list[dict]:
  """Returns the rows of a results file in COCO's format, which can be stored as JSON.

  Args:
    detections: of each image.
    category_ids: of each label; detections of a category below 0, which the annotations do not
      have, are left out.
  """
  rows = []
  for image in detections:
    for i, (box, score, label) in enumerate(zip(image.boxes, image.scores, image.labels)):
      if category_ids[label] < 0:
        continue
      x1, y1, x2, y2 = map(float, box)
      row = {'image_id': image.image_id, 'category_id': int(category_ids[label]),
             'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': float(score)}
      if image.masks is not None:
        row['segmentation'] = image.masks[i]
      rows.append(row)
  return rows


def coco_metrics(ground_truth: dict, rows: Sequence[dict], kind: Literal['box', 'mask'] = 'box', *,
                 image_ids: Sequence[Any] | None = None, per_class: bool = False,
                 use_categories: bool = True) -> dict[str, float]:
  """Returns the twelve metrics of COCO as 'box_AP' ... 'box_ARl', or 'mask_AP' ...

  The sizes of detections are those of their masks for 'mask', whatever box a row has as well, as
  the published mask numbers are made.

  Args:
    ground_truth: images, annotations and categories in COCO's format.
    rows: results, as `result_rows` returns them.
    kind: what is compared.
    image_ids: of the images that count; None takes all of `ground_truth`.
    per_class: adds 'box_AP/NAME' of every category.
    use_categories: False takes all categories for one.
  Raises:
    UserError: pycocotools is not installed, or a row is of an unknown image, or lacks its mask.
  """
  coco_masks()
  from pycocotools.cocoeval import COCOeval
  with contextlib.redirect_stdout(io.StringIO()):
    truth = _index(ground_truth, _annotations(ground_truth['annotations'], kind))
    found = _index(ground_truth, _results(rows, truth, kind))
    evaluation = COCOeval(truth, found, 'bbox' if kind == 'box' else 'segm')
    if image_ids is not None:
      evaluation.params.imgIds = sorted(set(image_ids))
    evaluation.params.useCats = int(use_categories)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  metrics = {f'{kind}_{name}': float(value) for name, value in zip(METRICS, evaluation.stats)}
  if per_class:
    if not use_categories:
      raise UserError('metrics of each class need use_categories=True')
    names = {entry['id']: entry['name'] for entry in ground_truth['categories']}
    for k, category in enumerate(evaluation.params.catIds):
      # IoU thresholds x recall thresholds x categories x sizes x numbers of detections.
      precision = evaluation.eval['precision'][:, :, k, 0, -1]
      precision = precision[precision > -1]
      metrics[f'{kind}_AP/{names[category]}'] = float(precision.mean()) if precision.size else -1.0
  return metrics


def _index(ground_truth: dict, annotations: list[dict]) -> Any:
  from pycocotools.coco import COCO
  coco = COCO()
  coco.dataset = {'images': ground_truth['images'], 'annotations': annotations,
                  'categories': ground_truth['categories']}
  coco.createIndex()
  return coco


def _annotations(annotations: Sequence[dict], kind: str) -> list[dict]:
  """Returns copies with what pycocotools needs, numbered from 1: it takes id 0 for no match."""
  copies = []
  for annotation in annotations:
    if kind == 'mask' and not annotation.get('segmentation'):
      continue
    width, height = annotation['bbox'][2:]
    copies.append({'iscrowd': 0, 'area': width * height, **annotation, 'id': len(copies) + 1})
  return copies


def _results(rows: Sequence[dict], truth: Any, kind: str) -> list[dict]:
  """Returns results as annotations, with the area of what is compared."""
  unknown = sorted({str(row['image_id']) for row in rows if row['image_id'] not in truth.imgs})
  if unknown:
    raise UserError(f'there are detections in images that the annotations do not list: '
                    f'{", ".join(unknown[:5])}')
  results = []
  for row in rows:
    result = {**row, 'id': len(results) + 1, 'iscrowd': 0}
    if kind == 'box':
      result['area'] = row['bbox'][2] * row['bbox'][3]
    elif row.get('segmentation'):
      result['area'] = float(coco_masks().area(row['segmentation']))
    else:
      raise UserError(f"a detection in image {row['image_id']} has no 'segmentation', which the "
                      'metrics of masks need')
    results.append(result)
  return results
