"""The two stages of a detector for one image: proposals and detections from network outputs."""
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fcajax.models.detection.rules import Rules
from fcajax.ops.anchors import base_anchors, grid_anchors
from fcajax.ops.boxes import clip_boxes, decode_boxes
from fcajax.ops.nms import nms
from fcajax.typing import Array, Bool, Float, Int

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
# Side of the square anchor in cells of its level: 32 pixels at a stride of 4.
ANCHOR_CELLS = 8
BOX_STDS = (0.1, 0.1, 0.2, 0.2)


class Boxes(NamedTuple):
  """Boxes of one image or a batch, padded to a fixed number.

  Attributes:
    boxes: in pixels of the (resized) image.
    scores: 0 to 1.
    valid: False for padding.
    labels: classes from 0; None of proposals.
  """
  boxes: Float[Array, '*batch 4']
  scores: Float[Array, '*batch']
  valid: Bool[Array, '*batch']
  labels: Int[Array, '*batch'] | None = None


def level_anchors(
    grids: Sequence[tuple[int, int]], strides: Sequence[int], image_size: tuple[int, int],
    rules: Rules,
) -> list[Float[Array, 'n 4']]:
  """Places the anchors of every pyramid level.

  Args:
    grids: (height, width) of each map.
    strides: image pixels per cell of each.
    image_size: (height, width) of the padded batch.
    rules: whether anchors are rounded and how far they stand apart.
  """
  anchors = []
  for grid, stride in zip(grids, strides, strict=True):
    base = base_anchors(ANCHOR_CELLS * stride, ANCHOR_RATIOS, rules.rounded_anchors)
    steps = (stride, stride)
    if rules.stride_from_map:
      steps = (image_size[0] // grid[0], image_size[1] // grid[1])
    anchors.append(grid_anchors(base, grid, steps))
  return anchors


def propose(
    logits: Sequence[Float[Array, ' _']], deltas: Sequence[Float[Array, '_ 4']],
    anchors: Sequence[Float[Array, '_ 4']], image_size: Int[Array, ' 2'], rules: Rules,
    before: int, after: int, threshold: float,
) -> Boxes:
  """Chooses the proposals of one image: best of each level, suppression a level, best of all.

  Args:
    logits, deltas, anchors: of each level.
    image_size: (height, width) of the image without padding.
    rules: the limits of the decoder and of sizes.
    before: proposals of a level before suppression.
    after: proposals in the result.
    threshold: of the suppression.
  """
  scores, boxes, levels = [], [], []
  for level, (score, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
    best, indices = lax.top_k(score, min(before, score.shape[0]))
    scores.append(best)
    boxes.append(decode_boxes(anchor[indices], delta[indices], clamp=rules.clamp))
    levels.append(jnp.full(best.shape, level))
  scores, boxes = jnp.concatenate(scores), clip_boxes(jnp.concatenate(boxes), image_size)
  scores = jax.nn.sigmoid(scores)
  valid = _large(boxes, rules.proposal_min_size)
  indices, kept = nms(boxes, scores, threshold, jnp.concatenate(levels), valid, limit=after)
  return Boxes(*_masked(kept, boxes[indices], scores[indices]), kept)


def detect(
    logits: Float[Array, 'r k'], deltas: Float[Array, 'r b 4'], proposals: Boxes,
    image_size: Int[Array, ' 2'], rules: Rules, score_threshold: float, nms_threshold: float,
    number: int,
) -> Boxes:
  """Turns class logits and box regressions of one image's proposals into detections.

  Every pair of proposal and class whose probability is above `score_threshold` is a candidate;
  suppression a class; the best `number` stay.
  """
  scores = jax.nn.softmax(logits)
  if rules.background == 'first':
    scores, deltas = scores[:, 1:], deltas[:, 1:]
  else:
    scores = scores[:, :-1]
  classes = scores.shape[1]
  boxes = decode_boxes(proposals.boxes[:, None], deltas, BOX_STDS, rules.clamp)
  boxes = clip_boxes(boxes, image_size).reshape(-1, 4)
  valid = ((scores > score_threshold) & proposals.valid[:, None]).reshape(-1)
  if rules.detection_min_size is not None:
    valid &= _large(boxes, rules.detection_min_size)
  scores = scores.reshape(-1)
  labels = jnp.arange(scores.shape[0], dtype=jnp.int32) % classes
  indices, kept = nms(boxes, scores, nms_threshold, labels, valid, limit=number)
  return Boxes(*_masked(kept, boxes[indices], scores[indices]), kept,
               jnp.where(kept, labels[indices], -1))


def _large(boxes, side):
  """Whether both sides are at least `side`, or above 0 where that is 0."""
  size = boxes[:, 2:] - boxes[:, :2]
  return jnp.all(size >= side if side else size > 0, axis=1)


def _masked(kept, boxes, scores):
  return jnp.where(kept[:, None], boxes, 0), jnp.where(kept, scores, 0)
