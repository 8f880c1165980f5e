"""Outlines to bitmaps, and to small masks that are cut to the objects' boxes."""
import numpy as np

from fcajax.input_pipeline.sources.annotations import Outline
from fcajax.preprocessing.run_lengths import coco_masks
from fcajax.typing import Float, UInt8


def _window(outline: tuple, size: tuple[int, int]) -> tuple[int, int, int, int]:
  """Returns top, left, bottom, right of the pixels that polygons can reach, inside the image."""
  points = np.concatenate(outline).reshape(-1, 2)
  limit = np.array([size[1], size[0]])
  low = np.clip(np.floor(points.min(0)) - 1, 0, limit - 1).astype(int)
  high = np.clip(np.ceil(points.max(0)) + 2, low + 1, limit).astype(int)
  return int(low[1]), int(low[0]), int(high[1]), int(high[0])


def rasterize(outline: Outline, size: tuple[int, int]) -> tuple[UInt8[np.ndarray, 'h w'], int, int]:
  """Draws an outline with COCO's own rules, in the smallest window that holds it.

  Args:
    outline: polygons, of which the union counts, or a run-length code.
    size: (height, width) of the image.
  Returns:
    (bitmap of 0 and 1, top, left): the image is zero outside the window that begins there. It
    equals the same window of pycocotools' bitmap of the whole image.
  """
  masks = coco_masks()
  if isinstance(outline, dict):
    code = outline
    if isinstance(code['counts'], list):
      code = masks.frPyObjects(code, *code['size'])
    return masks.decode(code), 0, 0
  top, left, bottom, right = _window(outline, size)
  # The coordinates are rounded to fifths of a pixel, so a shift by whole pixels changes nothing.
  shifted = [(polygon.reshape(-1, 2).astype(np.float64) - (left, top)).ravel()
             for polygon in outline]
  codes = masks.frPyObjects(shifted, bottom - top, right - left)
  return masks.decode(masks.merge(codes)), top, left


def bitmap(outline: Outline, size: tuple[int, int], resized: tuple[int, int],
           mirror: bool = False) -> UInt8[np.ndarray, 'h w']:
  """Returns the bitmap of 0 and 1 of a whole resized image, as mmdetection makes it.

  It is drawn in the original image and enlarged by taking the nearest pixel: row i is row
  floor(i * height / resized height).

  Args:
    outline: in pixels of the original image.
    size: (height, width) of the original image.
    resized: (height, width) of the result.
    mirror: flips left to right.
  """
  whole = np.zeros(size, np.uint8)
  drawn, top, left = rasterize(outline, size)
  whole[top:top + drawn.shape[0], left:left + drawn.shape[1]] = drawn
  rows, columns = (np.arange(new) * old // new for old, new in zip(size, resized))
  result = whole[rows][:, columns]
  return result[:, ::-1] if mirror else result


def _cover(low: float, high: float, cells: int, first: int, count: int, old: int,
           new: int) -> Float[np.ndarray, 'cells count']:
  """Returns how much of each of `cells` parts of low..high each original pixel takes.

  Original pixel p becomes the resized pixels i with floor(i * old / new) = p, which begin at
  ceil(p * new / old).
  """
  edges = -(-(np.arange(first, first + count + 1) * new) // old)
  part = low + (high - low) / cells * np.arange(cells + 1)
  shared = (np.minimum(part[1:, None], edges[1:]) - np.maximum(part[:-1, None], edges[:-1]))
  return (np.maximum(shared, 0) * (cells / (high - low))).astype(np.float32)


def box_mask(outline: Outline, size: tuple[int, int], resized: tuple[int, int],
             box: Float[np.ndarray, '4'], cells: int,
             mirror: bool = False) -> UInt8[np.ndarray, 'cells cells']:
  """Returns which share of each cell of a box the object covers, 255 for all of it.

  It is the mean over the cell of the bitmap that `bitmap` returns, computed without making it.

  Args:
    outline: in pixels of the original image.
    size: (height, width) of the original image.
    resized: (height, width) of the image that `box` is in.
    box: corners x1, y1, x2, y2 in the resized image, before a flip.
    cells: of the result, a side.
    mirror: flips the result left to right.
  """
  drawn, top, left = rasterize(outline, size)
  x1, y1, x2, y2 = map(float, box)
  rows = _cover(y1, y2, cells, top, drawn.shape[0], size[0], resized[0])
  columns = _cover(x1, x2, cells, left, drawn.shape[1], size[1], resized[1])
  # Pixels outside the box weigh nothing: a crowd's code spans the image, its box may be small.
  used_rows, used_columns = rows.any(0), columns.any(0)
  inside = drawn[used_rows][:, used_columns].astype(np.float32)
  share = rows[:, used_rows] @ inside @ columns[:, used_columns].T
  result = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
  return result[:, ::-1] if mirror else result
