"""Metrics of keypoints on the host, in float64: OKS, its NMS, COCO's ten numbers, PCK.

Sources: https://cocodataset.org/#keypoints-eval (OKS, AP and AR);
Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018 (rescoring, OKS-NMS).
"""
import contextlib
import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from fcajax.errors import UserError
from fcajax.preprocessing.run_lengths import coco_masks
from fcajax.typing import Bool, Float, Integer, Num

COCO_METRICS = ('AP', 'AP50', 'AP75', 'APm', 'APl', 'AR', 'AR50', 'AR75', 'ARm', 'ARl')


@dataclasses.dataclass(frozen=True)
class KeypointTruth:
  """The labelled persons of an evaluation set, one a row.

  Attributes:
    image_ids: the image that each belongs to.
    keypoints: x, y in pixels of the image and visibility (0 is not labelled).
    boxes: x, y, width, height.
    areas: in pixels; OKS divides by them.
    ignore: a crowd or the like: what matches it counts neither for nor against. Persons without a
      labelled joint are ignored in any case.
  """
  image_ids: Integer[np.ndarray, ' g']
  keypoints: Num[np.ndarray, 'g k 3']
  boxes: Num[np.ndarray, 'g 4']
  areas: Num[np.ndarray, ' g']
  ignore: Bool[np.ndarray, ' g']


@dataclasses.dataclass(frozen=True)
class KeypointResults:
  """Found persons, one a row.

  Attributes:
    image_ids: the image that each belongs to.
    keypoints: x, y in pixels of the image and the score of each joint.
    scores: of the person; only their order counts.
  """
  image_ids: Integer[np.ndarray, ' d']
  keypoints: Num[np.ndarray, 'd k 3']
  scores: Num[np.ndarray, ' d']

  def take(self, rows: Integer[np.ndarray, ' n']) -> 'KeypointResults':
    """Returns the results at `rows`."""
    return KeypointResults(self.image_ids[rows], self.keypoints[rows], self.scores[rows])


def pairwise_oks(
    keypoints: Num[np.ndarray, 'n k 2'], areas: Num[np.ndarray, ' n'],
    sigmas: Sequence[float],
) -> Float[np.ndarray, 'n n']:
  """Computes the object keypoint similarity of every two results.

      OKS(a, b) = mean_k exp(-d_k^2 / (2 (2 sigma_k)^2 (area_a + area_b) / 2))
  """
  points = keypoints.astype(np.float64)
  squared = np.sum((points[:, None] - points[None])**2, axis=-1)
  area = (areas[:, None] + areas[None]) / 2 + np.spacing(1)
  variances = (2 * _checked_sigmas(sigmas, points.shape[1]))**2
  return np.mean(np.exp(-squared / variances / area[..., None] / 2), axis=-1)


def oks_nms(
    keypoints: Num[np.ndarray, 'n k 2'], areas: Num[np.ndarray, ' n'],
    scores: Num[np.ndarray, ' n'], sigmas: Sequence[float], threshold: float = 0.9,
) -> Integer[np.ndarray, ' m']:
  """Keeps the best results whose OKS with a better kept one is at most `threshold`.

  Args:
    keypoints: x, y of the persons of one image.
    areas: published: of the enlarged crop, not of the person.
    scores: of the persons.
    sigmas: one for each joint.
    threshold: published: 0.9.

  Returns:
    Indices of what is kept, best score first.
  """
  similarity = pairwise_oks(keypoints, areas, sigmas)
  left = np.argsort(-scores, kind='stable')
  kept = []
  while len(left):
    best, left = left[0], left[1:]
    kept.append(best)
    left = left[similarity[best, left] <= threshold]
  return np.array(kept, np.int64)


def person_scores(
    box_scores: Num[np.ndarray, ' n'], joint_scores: Num[np.ndarray, 'n k'],
    threshold: float = 0.2,
) -> Float[np.ndarray, ' n']:
  """Multiplies each box's score by the mean of its joint scores above `threshold`, or 0."""
  counted = joint_scores > threshold
  total = np.sum(np.where(counted, joint_scores, 0), axis=-1, dtype=np.float64)
  return box_scores * total / np.maximum(counted.sum(axis=-1), 1)


def coco_keypoint_metrics(
    truth: KeypointTruth, results: KeypointResults, sigmas: Sequence[float],
) -> dict[str, float]:
  """Returns COCO's ten keypoint metrics, as pycocotools computes them for joints of any kind.

  Of each image the 20 best results count. Medium and large persons have areas of 32^2 to 96^2 and
  of more; a result's own area is that of the box around its joints.

  Returns:
    Values by the names of `COCO_METRICS`; -1 where no person of that size is labelled.

  Raises:
    UserError: pycocotools is not installed, or `sigmas` are not one positive number a joint.
  """
  values = _checked_sigmas(sigmas, truth.keypoints.shape[1])
  coco_masks()
  from pycocotools.coco import COCO
  from pycocotools.cocoeval import COCOeval
  images = sorted({*truth.image_ids.tolist(), *results.image_ids.tolist()})
  with contextlib.redirect_stdout(io.StringIO()):
    indexed = []
    for rows in (_truth_rows(truth), _result_rows(results)):
      coco = COCO()
      coco.dataset = {'images': [{'id': image} for image in images], 'annotations': rows,
                      'categories': [{'id': 1}]}
      coco.createIndex()
      indexed.append(coco)
    judge = COCOeval(*indexed, 'keypoints')
    judge.params.kpt_oks_sigmas = values
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return {name: float(value) for name, value in zip(COCO_METRICS, judge.stats)}


def _truth_rows(truth):
  seen = (truth.keypoints[:, :, 2] > 0).sum(axis=1)
  # Numbered from 1: pycocotools takes 0 for no match.
  return [{'id': i + 1, 'image_id': int(truth.image_ids[i]), 'category_id': 1,
           'keypoints': truth.keypoints[i].ravel().tolist(), 'num_keypoints': int(seen[i]),
           'bbox': truth.boxes[i].tolist(), 'area': float(truth.areas[i]),
           'iscrowd': int(truth.ignore[i])} for i in range(len(seen))]


def _result_rows(results):
  sides = np.ptp(results.keypoints[:, :, :2], axis=1)
  return [{'id': i + 1, 'image_id': int(results.image_ids[i]), 'category_id': 1,
           'keypoints': results.keypoints[i].ravel().tolist(),
           'score': float(results.scores[i]), 'area': float(sides[i].prod())}
          for i in range(len(sides))]


def _checked_sigmas(sigmas: Sequence[float], count: int) -> Float[np.ndarray, ' k']:
  values = np.asarray(sigmas, np.float64)
  if values.shape != (count,) or not (values > 0).all():
    raise UserError(f'sigmas={list(sigmas)} must be one number above 0 for each of the {count} '
                    'joints; without them use PCK')
  return values


def pck(
    predicted: Num[np.ndarray, 'n k 2'], labelled: Num[np.ndarray, 'n k 3'],
    lengths: Num[np.ndarray, ' n'], threshold: float = 0.2,
) -> tuple[float, Float[np.ndarray, ' k']]:
  """Computes the percentage of correct keypoints, as a share.

  A labelled joint is correct within `threshold` of the person's length, here the longer side of its
  box (Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of Parts", 2013).

  Args:
    predicted: x, y of the persons.
    labelled: x, y and visibility of the same persons.
    lengths: of the persons, in pixels.
    threshold: share of the length.

  Returns:
    The share over all labelled joints, and for each joint; NaN where none is labelled.
  """
  seen = labelled[:, :, 2] > 0
  distance = np.linalg.norm(predicted.astype(np.float64) - labelled[:, :, :2], axis=-1)
  right = seen & (distance <= threshold * lengths[:, None])
  count = seen.sum(axis=0)
  each = np.where(count > 0, right.sum(axis=0) / np.maximum(count, 1), np.nan)
  total = int(seen.sum())
  return (float(right.sum() / total) if total else float('nan')), each
