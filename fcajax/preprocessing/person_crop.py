"""The crop of one person: from its box to the network's input, and from heat maps back.

Source: the code published with Xiao et al., "Simple Baselines for Human Pose Estimation and
Tracking", 2018. Points are (x, y); a pixel's centre is a whole number. Boxes are x, y, width,
height.
"""
import cv2
import numpy as np

from fcajax.typing import Float, Num, Shaped

# The crop is this many times the box, after the box has got the crop's shape.
PADDING = 1.25


def clip_boxes(
    boxes: Num[np.ndarray, 'n 4'], image_sizes: Num[np.ndarray, 'n 2'],
) -> Float[np.ndarray, 'n 4']:
  """Cuts annotated boxes at the last pixel of the image; widths become one pixel smaller.

  Args:
    boxes: x, y, width, height.
    image_sizes: (height, width) of each box's image.

  Returns:
    Boxes whose width or height is below 0 where nothing of them lies in the image.
  """
  boxes = boxes.astype(np.float64)
  low = np.maximum(boxes[:, :2], 0)
  last = image_sizes[:, ::-1].astype(np.float64) - 1
  high = np.minimum(low + np.maximum(boxes[:, 2:] - 1, 0), last)
  return np.concatenate([low, high - low], axis=1)


def crop_regions(
    boxes: Num[np.ndarray, 'n 4'], shape: tuple[int, int], padding: float = PADDING,
) -> tuple[Float[np.ndarray, 'n 2'], Float[np.ndarray, 'n 2']]:
  """Widens boxes about their centres to the shape of the crop, then by `padding`.

  Args:
    boxes: x, y, width, height.
    shape: (height, width) of the crop.
    padding: factor on both sides.

  Returns:
    Centres (x, y) and sizes (width, height) in pixels of the image.
  """
  boxes = boxes.astype(np.float64)
  aspect = shape[1] / shape[0]
  width = np.maximum(boxes[:, 2], boxes[:, 3] * aspect)
  size = np.stack([width, width / aspect], axis=1)
  return boxes[:, :2] + boxes[:, 2:] * 0.5, size * padding


def crop_matrix(
    centre: Num[np.ndarray, '2'], width: float, rotation: float, shape: tuple[int, int],
) -> Float[np.ndarray, '2 3']:
  """Returns the affine map of image points to crop points.

      p_crop = s R(-rotation) (p - centre) + (w, h) / 2,   s = w / width

  Args:
    centre: of the crop in the image.
    width: of the crop in pixels of the image; its height follows from `shape`.
    rotation: degrees, clockwise as seen on the screen.
    shape: (h, w) of the crop.
  """
  angle = np.deg2rad(rotation)
  scale = shape[1] / width
  cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
  linear = np.array([[cosine, sine], [-sine, cosine]])
  middle = np.array([shape[1] * 0.5, shape[0] * 0.5])
  return np.concatenate([linear, (middle - linear @ centre)[:, None]], axis=1)


def transform_points(
    matrix: Float[np.ndarray, '2 3'], points: Num[np.ndarray, '*n 2'],
) -> Float[np.ndarray, '*n 2']:
  """Applies an affine map to points."""
  return points @ matrix[:, :2].T + matrix[:, 2]


def covered_rows(
    matrix: Float[np.ndarray, '2 3'], shape: tuple[int, int], height: int,
) -> int:
  """Returns how many of the image's rows, from the top, the crop can read; at least 1.

  Args:
    matrix: from the image to the crop.
    shape: (h, w) of the crop.
    height: of the image.
  """
  inverse = cv2.invertAffineTransform(matrix)
  h, w = shape
  corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], np.float64)
  lowest = transform_points(inverse, corners)[:, 1].max()
  # Interpolation reads the next row as well, and rounding may reach one more.
  return int(np.clip(np.ceil(lowest) + 3, 1, height))


def warp(
    image: Shaped[np.ndarray, 'h w 3'], matrix: Float[np.ndarray, '2 3'],
    out: Shaped[np.ndarray, 'h2 w2 3'],
) -> None:
  """Cuts the crop out of an image with bilinear interpolation; black outside of the image."""
  cv2.warpAffine(image, matrix, out.shape[1::-1], dst=out, flags=cv2.INTER_LINEAR)


def heatmap_to_image(
    points: Num[np.ndarray, 'n k 2'], centres: Num[np.ndarray, 'n 2'],
    widths: Num[np.ndarray, ' n'], heatmap_size: tuple[int, int],
) -> Float[np.ndarray, 'n k 2']:
  """Maps points of the heat maps to the image.

  Args:
    points: x, y in heat map pixels.
    centres, widths: of the crops in the image.
    heatmap_size: (height, width) of the maps.
  """
  height, width = heatmap_size
  offset = points.astype(np.float64) - np.array([width, height]) * 0.5
  return offset * (widths / width)[:, None, None] + centres[:, None]
