"""Resizing that keeps the aspect of an image, and padding to one of a few shapes."""
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from fcajax.typing import UInt8


@runtime_checkable
class SizeRule(Protocol):
  """What the functions below need to know: fields of `KeepAspect`."""
  short_side: int
  long_side: int
  divisor: int
  bucket_aspects: Sequence[float]


@dataclasses.dataclass(frozen=True)
class KeepAspect:
  """How an image of any size becomes the input of a detector; stored with its weights.

  Attributes:
    short_side, long_side: the image is resized until one of these sides is reached.
    divisor: the sides of a padded image are multiples of it.
    bucket_aspects: long / short side up to which an image is padded to a narrower shape than the
      widest one.
    enlarge: pixels of the image a pixel of the boxes.
  """
  short_side: int = 800
  long_side: int = 1333
  divisor: int = 32
  bucket_aspects: tuple[float, ...] = (1.34,)
  enlarge: int = 1

  @classmethod
  def from_settings(cls, settings: Any) -> 'KeepAspect':
    """Takes the fields of the same names from an object."""
    return cls(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)})

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'KeepAspect':
    """The inverse of `to_dict`."""
    return cls(**{**values, 'bucket_aspects': tuple(values['bucket_aspects'])})

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON-able values."""
    return {**dataclasses.asdict(self), 'bucket_aspects': list(self.bucket_aspects)}

  def load(self, pixels: UInt8[np.ndarray, 'rows columns 3'], size: tuple[int, int],
           shape: tuple[int, int]) -> UInt8[np.ndarray, 'h w 3']:
    """Returns an image resized and padded with zeros at the right and below, times `enlarge`.

    Args:
      pixels: RGB, the whole image, perhaps decoded at a smaller size.
      size: (height, width) of the original image.
      shape: of `bucket_shapes`, in pixels of the boxes.
    """
    height, width = (side * self.enlarge for side in resized_size(size, self))
    padded = np.zeros((shape[0] * self.enlarge, shape[1] * self.enlarge, 3), np.uint8)
    resized = np.empty((height, width, 3), np.uint8)
    resize_into(pixels, (0, 0, *pixels.shape[:2]), resized, mirror=False)
    padded[:height, :width] = resized
    return padded


def resized_size(size: tuple[int, int], rule: SizeRule) -> tuple[int, int]:
  """Returns (height, width) after resizing with the aspect kept, rounded as mmdetection does.

  Args:
    size: (height, width) of the image.
    rule: the limits of the sides.
  """
  scale = min(rule.long_side / max(size), rule.short_side / min(size))
  return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def bucket_shapes(rule: SizeRule) -> tuple[tuple[int, int], ...]:
  """Returns the (height, width) that images are padded to, smallest area first.

  With the default settings: 800 x 1088 and 800 x 1344, and both on end. They are in pixels of the
  boxes; the image's array is `enlarge` times as large.
  """
  unit = rule.divisor
  longest = rule.long_side / rule.short_side
  shapes = set()
  for aspect in (*rule.bucket_aspects, longest):
    # Rounding an image's sides apart can add a pixel.
    long = min(rule.long_side, round(rule.short_side * aspect))
    sides = [-(-side // unit) * unit for side in (rule.short_side, long)]
    shapes |= {tuple(sides), tuple(sides[::-1])}
  return tuple(sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape)))


def bucket_of(size: tuple[int, int], rule: SizeRule) -> int:
  """Returns the index in `bucket_shapes` of the smallest shape that holds the resized image."""
  height, width = resized_size(size, rule)
  return next(i for i, shape in enumerate(bucket_shapes(rule))
              if height <= shape[0] and width <= shape[1])


def resize_into(
    pixels: UInt8[np.ndarray, 'rows columns 3'], crop: Sequence[float],
    out: UInt8[np.ndarray, 'h w 3'], mirror: bool) -> None:
  """Resizes a crop into a slot of a batch.

  Bilinear up to a shrinkage of two, area averaging beyond.

  Args:
    pixels: RGB.
    crop: (top, left, height, width) in its pixels; rounded outwards.
    out: contiguous; written.
    mirror: True flips left to right.
  """
  top, left = max(0, int(crop[0])), max(0, int(crop[1]))
  bottom = max(top + 1, min(pixels.shape[0], int(np.ceil(crop[0] + crop[2] - 1e-6))))
  right = max(left + 1, min(pixels.shape[1], int(np.ceil(crop[1] + crop[3] - 1e-6))))
  view = pixels[top:bottom, left:right]
  rows, columns = out.shape[:2]
  shrinks = max(view.shape[0] / rows, view.shape[1] / columns)
  method = cv2.INTER_AREA if shrinks > 2 else cv2.INTER_LINEAR
  if mirror:
    cv2.flip(cv2.resize(view, (columns, rows), interpolation=method), 1, dst=out)
  else:
    cv2.resize(view, (columns, rows), dst=out, interpolation=method)
