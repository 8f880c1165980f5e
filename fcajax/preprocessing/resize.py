"""Resizing and centre crops as in evaluation."""
import numpy as np
from PIL import Image

from fcajax.typing import UInt8


def resized_shape(
    height: int, width: int, short_side: int, shape: tuple[int, int]) -> tuple[int, int]:
  """Returns the (height, width) to which a whole image is resized before the centre crop.

  Args:
    height, width: of the image.
    short_side: of the resized image.
    shape: of the crop; the resized image is never smaller.
  """
  rows, columns = shape
  if height <= width:
    resized = short_side, int(short_side * width / height)
  else:
    resized = int(short_side * height / width), short_side
  if resized[0] < rows or resized[1] < columns:
    factor = max(rows / height, columns / width)
    resized = max(rows, round(height * factor)), max(columns, round(width * factor))
  return resized


def resize_and_crop(
    image: UInt8[np.ndarray, 'h w 3'], resized: tuple[int, int], shape: tuple[int, int],
) -> UInt8[np.ndarray, 'rows columns 3']:
  """Returns the centre of a resized image, with Pillow's antialiased bilinear filter.

  Only the pixels of the crop are computed. They equal those of the whole image resized first to
  within one grey level.

  Args:
    image: RGB.
    resized: (height, width) of the whole image after resizing.
    shape: (height, width) of the crop.
  """
  height, width = image.shape[:2]
  top = round((resized[0] - shape[0]) / 2)
  left = round((resized[1] - shape[1]) / 2)
  if (height, width) == tuple(resized):
    return np.ascontiguousarray(image[top:top + shape[0], left:left + shape[1]])
  down, right = height / resized[0], width / resized[1]
  box = (left * right, top * down, min(width, (left + shape[1]) * right),
         min(height, (top + shape[0]) * down))
  return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR, box=box))
