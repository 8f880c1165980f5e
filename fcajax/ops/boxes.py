"""Boxes `(x1, y1, x2, y2)` in pixels: overlaps, coding against other boxes, clipping, levels."""
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from fcajax.typing import Array, Float, Int

# The largest change of size that a box regression may ask for: log(1000 / 16).
MAX_LOG_RATIO = math.log(1000 / 16)


def box_area(boxes: Float[Array, '*batch 4']) -> Float[Array, '*batch']:
  """Returns width times height; a box with a negative side has an area of 0."""
  size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
  return size[..., 0] * size[..., 1]


def clip_boxes(
    boxes: Float[Array, '*batch 4'], image_size: Float[Array, '2'] | Int[Array, '2'],
) -> Float[Array, '*batch 4']:
  """Moves every corner into the image of `image_size` (height, width), borders included."""
  height, width = image_size
  limits = jnp.stack([width, height, width, height]).astype(boxes.dtype)
  return jnp.clip(boxes, 0, limits)


def pairwise_overlap(
    a: Float[Array, 'n 4'], b: Float[Array, 'm 4'], mode: Literal['iou', 'iof'] = 'iou',
) -> Float[Array, 'n m']:
  """Computes how much each box of `a` overlaps each box of `b`.

      iou = |a and b| / |a or b|,   iof = |a and b| / |a|

  'iof' with regions of crowds as `b` is COCO's crowd IoU. The denominator is at least 1e-6 square
  pixels, so that two boxes of no area have an overlap of 0 (torchvision gives NaN).
  """
  corner = jnp.maximum(a[:, None, :2], b[None, :, :2])
  size = jnp.maximum(jnp.minimum(a[:, None, 2:], b[None, :, 2:]) - corner, 0)
  common = size[..., 0] * size[..., 1]
  area = box_area(a)[:, None]
  whole = area + box_area(b)[None] - common if mode == 'iou' else area
  return common / jnp.maximum(whole, 1e-6)


def encode_boxes(
    boxes: Float[Array, '*batch 4'], targets: Float[Array, '*batch 4'],
    stds: Sequence[float] = (1, 1, 1, 1),
) -> Float[Array, '*batch 4']:
  """Encodes `targets` against `boxes`, the inverse of `decode_boxes`.

      dx = (tx - x) / w,  dy = (ty - y) / h,  dw = log(tw / w),  dh = log(th / h),  each / std

  where x, y are centres. Boxes or targets of no area give infinite values; mask them.

  Source: Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C.
  """
  size = boxes[..., 2:] - boxes[..., :2]
  target_size = targets[..., 2:] - targets[..., :2]
  shift = (_centres(targets) - _centres(boxes)) / size
  deltas = jnp.concatenate([shift, jnp.log(target_size / size)], axis=-1)
  return deltas / jnp.asarray(stds, deltas.dtype)


def decode_boxes(
    boxes: Float[Array, '*#batch 4'], deltas: Float[Array, '*#batch 4'],
    stds: Sequence[float] = (1, 1, 1, 1), clamp: Literal['both', 'above'] = 'both',
) -> Float[Array, '*batch 4']:
  """Applies regression outputs `deltas` to `boxes`; see `encode_boxes` for the code.

  Args:
    boxes: anchors or proposals.
    deltas: (dx, dy, dw, dh), divided by `stds`.
    stds: standard deviations that the deltas were divided by.
    clamp: dw and dh are limited to log(1000 / 16) 'above' alone (torchvision), or to
      [-log(1000 / 16), log(1000 / 16)], 'both' sides (mmdetection).
  """
  deltas = deltas * jnp.asarray(stds, deltas.dtype)
  size = boxes[..., 2:] - boxes[..., :2]
  below = -MAX_LOG_RATIO if clamp == 'both' else None
  centre = _centres(boxes) + deltas[..., :2] * size
  half = 0.5 * size * jnp.exp(jnp.clip(deltas[..., 2:], below, MAX_LOG_RATIO))
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def _centres(boxes):
  return 0.5 * (boxes[..., :2] + boxes[..., 2:])


def box_levels(
    boxes: Float[Array, '*batch 4'], levels: int = 4,
    rule: Literal['mmdet', 'torchvision'] = 'mmdet',
) -> Int[Array, '*batch']:
  """Chooses the pyramid level of each box by its area, 0 for the finest map.

      mmdet:        floor(log2(sqrt(area) / 56 + 1e-6))
      torchvision:  floor(log2(sqrt(area) / 224) + 4 + 1e-6) - 2

  both cut to [0, levels - 1]. Source: Lin et al., "Feature Pyramid Networks", 2017, equation 1.
  """
  scale = jnp.sqrt(box_area(jax.lax.stop_gradient(boxes)))
  if rule == 'mmdet':
    level = jnp.floor(jnp.log2(scale / 56 + 1e-6))
  else:
    level = jnp.floor(4 + jnp.log2(scale / 224) + 1e-6) - 2
  return jnp.clip(level, 0, levels - 1).astype(jnp.int32)
