"""Masks of boxes: pasted into an image, and cut from the ground truth as training targets."""
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax

from fcajax.ops.roi_align import interpolation_matrix
from fcajax.typing import Array, Float, Int, Num


def paste_mask(
    mask: Float[np.ndarray, 'm m'], box: Float[np.ndarray, ' 4'], image_size: tuple[int, int],
    rule: Literal['mmdet', 'torchvision'] = 'mmdet',
) -> Float[np.ndarray, 'h w']:
  """Resamples the mask of one box into an image; a pixel belongs to the object from 0.5 on.

  On the host, since images differ in size.

  Args:
    mask: probabilities.
    box: in pixels.
    image_size: (height, width).
    rule: 'mmdet' samples the exact box at pixel centres; 'torchvision' pads the mask by one cell,
      widens the box as much, cuts its corners to whole pixels and resizes.
  """
  height, width = image_size
  if rule == 'mmdet':
    x0, y0, x1, y1 = (np.float32(v) for v in box)
    rows = _hat((_centres(height) - y0) / (y1 - y0) * mask.shape[0] - 0.5, mask.shape[0])
    columns = _hat((_centres(width) - x0) / (x1 - x0) * mask.shape[1] - 0.5, mask.shape[1])
    return rows @ mask @ columns.T
  mask = np.pad(mask, 1)
  grown = mask.shape[0] / (mask.shape[0] - 2)
  centre, half = (box[:2] + box[2:]) * 0.5, (box[2:] - box[:2]) * 0.5 * np.float32(grown)
  first = np.trunc(centre - half).astype(np.int64)
  last = np.trunc(centre + half).astype(np.int64)
  columns, rows = (
      _resize_rows(f, la, n, mask.shape[0]) for f, la, n in zip(first, last, (width, height)))
  return rows @ mask @ columns.T


def _centres(size):
  return np.arange(size, dtype=np.float32) + np.float32(0.5)


def _hat(position, cells):
  """Bilinear weights `[len(position), cells]`, nothing beyond the cells."""
  with np.errstate(invalid='ignore'):  # a box of no area has no pixels
    distance = np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
  return np.nan_to_num(np.maximum(1 - distance, 0)).astype(np.float32)


def _resize_rows(first, last, length, cells):
  """Weights that resize `cells` to the pixels first..last and place them among `length`."""
  size = max(int(last - first + 1), 1)
  pixel = np.arange(length)
  position = (pixel - first + np.float32(0.5)) * np.float32(cells / size) - np.float32(0.5)
  weights = _hat(np.clip(position, 0, cells - 1), cells)
  weights[(pixel < first) | (pixel >= first + size)] = 0
  return weights


def mask_targets(
    masks: Num[Array, 'g h w'], regions: Float[Array, 'g 4'], boxes: Float[Array, 'r 4'],
    truth: Int[Array, ' r'], output_size: int, sampling_ratio: int = 0, aligned: bool = True,
    threshold: float | None = 0.5,
) -> Float[Array, 'r s s']:
  """Cuts the mask of its ground truth to each box by RoIAlign.

  Args:
    masks: bitmaps of the ground truth, 0 to 1.
    regions: the part of the image, in pixels, that each bitmap covers: (0, 0, width, height) for
      bitmaps of the whole image, which give mmdetection's and torchvision's targets exactly, or
      the box of each ground truth for bitmaps cut to it.
    boxes: sampled proposals, in pixels of the image.
    truth: index in `masks` of each box.
    output_size, sampling_ratio, aligned: as in `roi_align`.
    threshold: targets are 1 from this value on, else 0; None leaves fractions (torchvision).
  """
  region = regions[truth]
  cells = jnp.asarray([masks.shape[2], masks.shape[1]], jnp.float32)
  scale = cells / jnp.maximum(region[:, 2:] - region[:, :2], 1e-6)
  start = (boxes[:, :2] - region[:, :2]) * scale
  size = (boxes[:, 2:] - boxes[:, :2]) * scale
  if aligned:
    start = start - 0.5
  else:
    size = jnp.maximum(size, 1)
  columns, rows = (
      interpolation_matrix(start[:, i], size[:, i], masks.shape[2 - i], output_size, sampling_ratio)
      for i in (0, 1))
  targets = jnp.einsum('rih,rhw,rjw->rij', rows, masks[truth].astype(jnp.float32), columns,
                       precision=lax.Precision.HIGHEST)
  if threshold is None:
    return targets
  # Bins that are exactly half full are common, and rounding must not empty them.
  return (targets >= threshold - 1e-5).astype(jnp.float32)
