"""Anchors: the boxes that a region proposal network corrects."""
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from fcajax.typing import Array, Bool, Float, Int


def base_anchors(
    size: float, ratios: Sequence[float] = (0.5, 1.0, 2.0), rounded: bool = False,
) -> Float[np.ndarray, 'a 4']:
  """Returns the anchors of one position, around (0, 0), of area `size ** 2`.

  Args:
    size: side of the square anchor in pixels.
    ratios: height divided by width.
    rounded: rounds the corners to whole pixels as torchvision does; mmdetection does not.
  """
  root = np.sqrt(np.asarray(ratios, np.float32))
  half = np.stack([size / root, size * root], axis=-1) / 2
  anchors = np.concatenate([-half, half], axis=-1).astype(np.float32)
  return np.round(anchors) if rounded else anchors


def grid_anchors(
    base: Float[np.ndarray, 'a 4'], grid: tuple[int, int], stride: tuple[int, int],
) -> Float[Array, 'n 4']:
  """Moves the anchors of one position to every position of a feature map.

  Args:
    base: anchors around (0, 0).
    grid: (height, width) of the feature map.
    stride: pixels between positions, (vertical, horizontal).

  Returns:
    `grid[0] * grid[1] * a` boxes, ordered by row, then column, then index in `base`.
  """
  y = jnp.arange(grid[0], dtype=jnp.float32)[:, None, None] * stride[0]
  x = jnp.arange(grid[1], dtype=jnp.float32)[None, :, None] * stride[1]
  y, x = jnp.broadcast_arrays(y, x)
  shift = jnp.concatenate([x, y, x, y], axis=-1)
  return (shift[:, :, None] + base).reshape(-1, 4)


def anchors_on_image(
    grid: tuple[int, int], stride: int, count: int, image_size: Int[Array, ' 2'],
) -> Bool[Array, ' n']:
  """Returns True for the anchors whose position lies on the image, in `grid_anchors`' order.

  The image is first extended to a multiple of 32 pixels, as mmdetection pads each image; what a
  batch pads beyond that takes no part in training.
  """
  padded = -(-image_size // 32) * 32
  rows, columns = -(-padded // stride)
  inside = (jnp.arange(grid[0]) < rows)[:, None] & (jnp.arange(grid[1]) < columns)
  return jnp.repeat(inside.reshape(-1), count)
