"""A trained detector as a pure function, and its detections in pixels of the original image."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fcajax.inference.open_model import Loaded
from fcajax.ops.masks import paste_mask
from fcajax.preprocessing.keep_aspect import KeepAspect
from fcajax.preprocessing.padding import clear_padding, positions_per_pixel
from fcajax.preprocessing.run_lengths import encode_masks
from fcajax.preprocessing.spec import device_transform
from fcajax.typing import Float, Int

Found = tuple[Float[np.ndarray, 'n 4'], Float[np.ndarray, ' n'], Int[np.ndarray, ' n'],
              list[dict] | None]


def resize_rule(opened: Loaded) -> KeepAspect:
  """Returns how a trained detector's images are resized; imported weights have the usual rule."""
  stored = opened.metadata.get('resize')
  if stored is not None:
    return KeepAspect.from_dict(stored)
  return KeepAspect(enlarge=2 if opened.preprocessing.representation == 'dct' else 1)


def detections_function(opened: Loaded) -> Callable[[Any, Any, Any], dict[str, Any]]:
  """Returns a pure function (variables, images, sizes) -> detections; this is what is exported.

  Images are uint8 `[N, H, W, 3]`, resized and padded with anything at the right and below; sizes
  int32 `[N, 2]`, height and width of each without padding in pixels of the boxes. The detections
  are 'boxes' `[N, D, 4]` (corners in the resized image), 'scores', 'labels', 'valid' `[N, D]`, and
  'masks' `[N, D, 28, 28]` of a network that has them.
  """
  model, preprocessing = opened.model, opened.preprocessing
  transform = device_transform(preprocessing, model.dtype or 'float32')
  scale = positions_per_pixel(preprocessing.representation, resize_rule(opened).enlarge)

  def detections(variables, images, sizes):
    inputs = clear_padding(transform(images), sizes, scale)
    return model.apply(variables, inputs, sizes, train=False)

  return detections


def original_detections(
    found: Mapping[str, np.ndarray], scale: Float[np.ndarray, ' 2'], size: tuple[int, int],
    paste: str = 'mmdet', min_score: float = 0.0) -> Found:
  """Returns (boxes, scores, labels, masks as run-length codes or None) of one original image.

  Args:
    found: what the network returned for the image, NumPy.
    scale: resized / original, vertical and horizontal.
    size: (height, width) of the original image.
    paste: rule of `paste_mask`.
    min_score: detections of a lower score are left out.
  """
  chosen = found['valid'] & (found['scores'] >= min_score)
  height, width = size
  boxes = found['boxes'][chosen] / np.array([scale[1], scale[0]] * 2, np.float32)
  boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
  codes = None
  if 'masks' in found:
    # One at a time: bitmaps of a hundred objects of a large image need much memory.
    codes = [encode_masks(paste_mask(mask, box, size, paste)[None] >= 0.5)[0]
             for mask, box in zip(found['masks'][chosen], boxes)]
  return boxes, found['scores'][chosen], found['labels'][chosen], codes
