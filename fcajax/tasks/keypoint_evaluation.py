"""From the maxima of heat maps to persons in images, and how they are judged."""
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcajax.preprocessing.person_crop import heatmap_to_image
from fcajax.preprocessing.skeleton import Skeleton
from fcajax.tasks.keypoint_metrics import (
  KeypointResults,
  KeypointTruth,
  coco_keypoint_metrics,
  oks_nms,
  pck,
  person_scores,
)
from fcajax.typing import Float, Int, Integer, Num


@dataclasses.dataclass(frozen=True)
class EvaluationPersons:
  """What is known of the crops of an evaluation, one a row.

  Attributes:
    skeleton: of all persons.
    image: index of each person's image.
    image_ids: of the images, as the annotation file has them.
    files: of the images.
    ranks: of the images' ids, which stand for them in `truth`.
    boxes: x, y, width, height of the persons.
    box_scores: a detector's, or 1.
    centres, sizes: of the crops in pixels of the image; sizes are (width, height).
    keypoints: x, y and visibility; all 0 for a detector's boxes.
    truth: all labelled persons of the images.
    category_id: of results.
  """
  skeleton: Skeleton
  image: Int[np.ndarray, ' n']
  image_ids: tuple[Any, ...]
  files: tuple[str, ...]
  ranks: Int[np.ndarray, ' m']
  boxes: Float[np.ndarray, 'n 4']
  box_scores: Float[np.ndarray, ' n']
  centres: Float[np.ndarray, 'n 2']
  sizes: Float[np.ndarray, 'n 2']
  keypoints: Float[np.ndarray, 'n k 3']
  truth: KeypointTruth
  category_id: int = 1

  @property
  def labelled(self) -> bool:
    """True if the persons are annotated, False for a detector's boxes."""
    return bool((self.keypoints[..., 2] > 0).any())


@dataclasses.dataclass(frozen=True)
class FoundPersons:
  """Persons that an evaluation found, one a row.

  Attributes:
    rows: of the `EvaluationPersons`.
    keypoints: x, y in pixels of the image and the score of each joint.
    scores: of the persons: the box's times the mean of the joints'.
  """
  rows: Int[np.ndarray, ' n']
  keypoints: Float[np.ndarray, 'n k 3']
  scores: Float[np.ndarray, ' n']

  def take(self, kept: Integer[np.ndarray, ' m']) -> 'FoundPersons':
    """Returns the persons at `kept`."""
    return FoundPersons(self.rows[kept], self.keypoints[kept], self.scores[kept])


def locate(
    persons: EvaluationPersons, rows: Int[np.ndarray, ' n'], points: Num[np.ndarray, 'n k 2'],
    joint_scores: Num[np.ndarray, 'n k'], heatmap_size: tuple[int, int],
    min_joint_score: float = 0.2,
) -> FoundPersons:
  """Maps the maxima of heat maps to the images and scores the persons.

  Args:
    persons: of the evaluation.
    rows: whose maps they are.
    points: x, y in pixels of the maps.
    joint_scores: the maxima.
    heatmap_size: (height, width) of the maps.
    min_joint_score: joints above it count for the person's score.
  """
  in_image = heatmap_to_image(
      points, persons.centres[rows], persons.sizes[rows, 0], heatmap_size)
  scores = joint_scores.astype(np.float64)
  return FoundPersons(
      rows, np.concatenate([in_image, scores[..., None]], axis=-1),
      person_scores(persons.box_scores[rows], scores, min_joint_score))


def suppress(
    persons: EvaluationPersons, found: FoundPersons, threshold: float = 0.9,
) -> FoundPersons:
  """Leaves out what repeats a better person of the same image (OKS-NMS).

  Without sigmas nothing is left out. The areas in OKS are those of the crops, as published.
  """
  if not persons.skeleton.sigmas:
    return found
  areas = persons.sizes[found.rows].prod(axis=1)
  images = persons.image[found.rows]
  order = np.argsort(images, kind='stable')
  groups = np.split(order, np.flatnonzero(np.diff(images[order])) + 1)
  kept = [group[oks_nms(found.keypoints[group, :, :2], areas[group], found.scores[group],
                        persons.skeleton.sigmas, threshold)] for group in groups if len(group)]
  return found.take(np.concatenate([np.zeros(0, np.int64), *kept]))


def judge(
    persons: EvaluationPersons, found: FoundPersons, nms_threshold: float = 0.9,
) -> dict[str, float]:
  """Computes what an evaluation reports.

  Returns:
    COCO's ten numbers if the skeleton has sigmas; 'PCK' at 0.2 of the longer side of the box if the
    persons are annotated.
  """
  values = {}
  if persons.skeleton.sigmas:
    kept = suppress(persons, found, nms_threshold)
    results = KeypointResults(
        persons.ranks[persons.image[kept.rows]], kept.keypoints, kept.scores)
    values |= coco_keypoint_metrics(persons.truth, results, persons.skeleton.sigmas)
  if persons.labelled:
    lengths = persons.boxes[found.rows, 2:].max(axis=1)
    values['PCK'] = pck(found.keypoints[..., :2], persons.keypoints[found.rows], lengths)[0]
  return values


def write_results(
    path: str | pathlib.Path, persons: EvaluationPersons, found: FoundPersons,
) -> None:
  """Writes persons as COCO's list of keypoint results, which pycocotools and the server read."""
  rows = [{'image_id': persons.image_ids[persons.image[row]], 'category_id': persons.category_id,
           'keypoints': [round(float(value), 4) for value in keypoints.ravel()],
           'score': float(score)}
          for row, keypoints, score in zip(found.rows, found.keypoints, found.scores)]
  pathlib.Path(path).write_text(json.dumps(rows))


def best_in_images(
    persons: EvaluationPersons, found: FoundPersons, count: int,
) -> list[tuple[str, Float[np.ndarray, 'p k 3']]]:
  """Returns (file, the keypoints found in it) of the first `count` images with persons."""
  images: Sequence[int] = np.unique(persons.image[found.rows])[:count]
  return [(persons.files[image], found.keypoints[persons.image[found.rows] == image])
          for image in images]
