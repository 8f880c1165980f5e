"""Skeletons drawn on images."""
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from fcajax.preprocessing.skeleton import Skeleton
from fcajax.typing import Num, UInt8

# Left, right and middle, RGB: blue, orange and green that colour-blind people tell apart.
_SIDES = ((0, 114, 178), (230, 120, 0), (0, 158, 115))
_FRAME = (255, 255, 255)


def draw_skeletons(
    image: UInt8[np.ndarray, 'h w 3'], persons: Num[np.ndarray, 'n k 3'], skeleton: Skeleton,
    threshold: float = 0.2,
) -> UInt8[np.ndarray, 'h w 3']:
  """Returns the image with the limbs and joints of persons.

  Left limbs are blue, right ones orange, others green. Left and right are the names' own, or the
  first and the second of each mirror pair.

  Args:
    image: RGB.
    persons: x, y in pixels and the score of each joint.
    skeleton: of the persons.
    threshold: joints of a lower score, and their limbs, are left out.
  """
  drawn = image.copy()
  colors = joint_colors(skeleton)
  unit = max(1, round(max(image.shape[:2]) / 300))
  for person in persons:
    shown = person[:, 2] >= threshold
    points = np.rint(person[:, :2]).astype(int)
    for a, b in skeleton.limbs:
      if shown[a] and shown[b]:
        # A limb between a side and the middle has the side's colour.
        color = min(colors[a], colors[b], key=_SIDES.index)
        _line(drawn, points[a], points[b], color, 2 * unit)
    for joint in np.flatnonzero(shown):
      centre = tuple(map(int, points[joint]))
      cv2.circle(drawn, centre, 2 * unit + 1, _FRAME, -1, cv2.LINE_AA)
      cv2.circle(drawn, centre, 2 * unit, colors[joint], -1, cv2.LINE_AA)
  return drawn


def _line(image, start, end, color, width):
  cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), color, width, cv2.LINE_AA)


def joint_colors(skeleton: Skeleton) -> list[tuple[int, int, int]]:
  """Returns the colour of each joint: left, right or middle."""
  colors = [_SIDES[2]] * len(skeleton.names)
  for first, second in skeleton.flip_pairs:
    if 'right' in skeleton.names[first].lower():
      first, second = second, first
    colors[first], colors[second] = _SIDES[0], _SIDES[1]
  return colors


def draw_grid(
    path: str | pathlib.Path, images: Sequence[UInt8[np.ndarray, '_ _ 3']], titles: Sequence[str],
    title: str, columns: int = 4,
) -> None:
  """Writes a picture of images in rows, each with its title."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  rows = -(-len(images) // columns)
  columns = min(columns, len(images))
  figure = Figure(figsize=(3 * columns, 2.9 * rows + 0.4), layout='constrained')
  FigureCanvasAgg(figure)
  axes = list(figure.subplots(rows, columns, squeeze=False).flat)
  for axis in axes:
    axis.set_axis_off()
  for axis, image, text in zip(axes, images, titles):
    axis.imshow(image)
    # A file's name may hold what matplotlib would take for a formula.
    axis.set_title(text, parse_math=False, fontsize=9)
  figure.suptitle(title, fontsize=11)
  figure.savefig(path, dpi=110)
