"""Heat maps of keypoints: targets, loss, flip average and decoding, all on the device.

Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018, and the code
published with it, whose rounding is kept. Joints are (x, y) in pixels of the crop, where a pixel's
centre is a whole number; heat maps are channels-last, one channel a joint.
"""
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.typing import AnyArray, Array, Bool, Float, Num

# A target is 0 beyond this many standard deviations along either axis.
_EXTENT = 3


def heatmap_targets(
    joints: Num[AnyArray, '*batch k 2'],
    visible: Num[AnyArray, '*batch k'],
    *,
    image_size: tuple[int, int],
    heatmap_size: tuple[int, int],
    sigma: float = 2.0,
) -> tuple[Float[Array, '*batch h w k'], Float[Array, '*batch k']]:
  """Draws a Gaussian of height 1 around every visible joint.

      target[y, x] = exp(-((x - mu_x)^2 + (y - mu_y)^2) / (2 sigma^2))

  where |x - mu_x| and |y - mu_y| are at most 3 sigma, and 0 elsewhere.

  The centre `mu` is the joint in heat map pixels, plus a half, cut towards zero to an integer. It
  may lie outside the map as long as its square of side `6 sigma + 1` touches the map.

  Args:
    joints: (x, y) in pixels of the crop.
    visible: above 0.5 for a joint that is labelled.
    image_size: (height, width) of the crop.
    heatmap_size: (height, width) of the maps.
    sigma: standard deviation in heat map pixels.

  Returns:
    The maps, and the weight of each joint: 1 if it is labelled and its square touches the map,
    else 0 (its map is 0 as well).
  """
  height, width = heatmap_size
  labelled = jnp.asarray(visible) > 0.5
  stride = np.array([image_size[1] / width, image_size[0] / height], np.float32)
  # A joint that is not labelled may hold anything, also no number.
  position = jnp.where(labelled[..., None], jnp.asarray(joints, jnp.float32), 0)
  centre = jnp.trunc(position / stride + 0.5)
  extent = int(_EXTENT * sigma)
  limit = np.array([width, height], np.float32)
  # The published rule: the far side is exclusive, so an empty square at -extent - 1 still counts.
  touches = jnp.all((centre - extent < limit) & (centre + extent + 1 >= 0), axis=-1)
  weight = (labelled & touches).astype(jnp.float32)
  rows = _gaussian(centre[..., 1], height, sigma, extent) * weight[..., None]
  columns = _gaussian(centre[..., 0], width, sigma, extent)
  return jnp.einsum('...kh,...kw->...hwk', rows, columns, precision='highest'), weight


def _gaussian(
    centre: Float[Array, '*batch k'], length: int, sigma: float, extent: int,
) -> Float[Array, '*batch k n']:
  """Returns one axis of the separable Gaussian, cut off at `extent`."""
  offset = jnp.arange(length, dtype=jnp.float32) - centre[..., None]
  return jnp.where(jnp.abs(offset) <= extent, jnp.exp(-offset**2 / (2 * sigma**2)), 0)


def heatmap_loss(
    predicted: Float[Array, '*batch h w k'],
    target: Float[Array, '*batch h w k'],
    weight: Float[Array, '*batch k'],
) -> Float[Array, '*batch']:
  """Computes half the mean squared error of each person's maps, in float32.

      loss = 1 / (2 K H W) sum_k (weight_k (predicted_k - target_k))^2

  The mean is over all K joints, so a person with few visible joints has a small loss. The mean over
  the batch is the published loss.
  """
  error = (predicted.astype(jnp.float32) - target) * weight[..., None, None, :]
  return 0.5 * jnp.mean(error**2, axis=(-3, -2, -1))


def flip_permutation(num_keypoints: int, flip_pairs: Sequence[Sequence[int]]) -> tuple[int, ...]:
  """Returns the joint that each joint becomes in a mirror.

  Raises:
    UserError: a pair that does not hold two different joints, or a joint in two pairs.
  """
  order = list(range(num_keypoints))
  seen = set()
  for pair in flip_pairs:
    if (len(pair) != 2 or len({*pair}) != 2 or seen & {*pair}
        or not all(0 <= joint < num_keypoints for joint in pair)):
      raise UserError(f'flip_pairs={[list(p) for p in flip_pairs]}: {list(pair)} must be two '
                      f'different joints of 0 to {num_keypoints - 1}, each in one pair at most')
    left, right = pair
    order[left], order[right] = right, left
    seen |= {left, right}
  return tuple(order)


def flip_back(
    heatmaps: Float[Array, '*batch h w k'], flip_pairs: Sequence[Sequence[int]],
) -> Float[Array, '*batch h w k']:
  """Mirrors the maps of mirrored images left to right and exchanges left and right joints."""
  order = flip_permutation(heatmaps.shape[-1], flip_pairs)
  return heatmaps[..., ::-1, :][..., np.array(order)]


def shift_right(heatmaps: Float[Array, '*batch h w k']) -> Float[Array, '*batch h w k']:
  """Moves every map by one pixel to the right; the first column stays as it is.

  The maps' stride puts the mirrored map off by less than a pixel; this makes up for most of it.
  """
  return jnp.concatenate([heatmaps[..., :1, :], heatmaps[..., :-1, :]], axis=-2)


def flip_average(
    heatmaps: Float[Array, '*batch h w k'],
    mirrored: Float[Array, '*batch h w k'],
    flip_pairs: Sequence[Sequence[int]],
    shift: bool = True,
) -> Float[Array, '*batch h w k']:
  """Averages the maps of images and of the same images mirrored.

  Args:
    heatmaps: of the images.
    mirrored: of the mirrored images, as the network gave them.
    flip_pairs: left and right joints.
    shift: moves the second maps by a pixel before the mean; see `shift_right`.
  """
  back = flip_back(mirrored, flip_pairs)
  return (heatmaps + (shift_right(back) if shift else back)) * 0.5


def decode_heatmaps(
    heatmaps: Float[AnyArray, '*batch h w k'], quarter_pixel: bool = True,
) -> tuple[Float[Array, '*batch k 2'], Float[Array, '*batch k']]:
  """Finds each map's maximum.

  The first of equal maxima counts, in rows from the top. With `quarter_pixel` the position moves by
  0.25 along each axis towards the larger neighbour, unless it is at the map's first two or last
  columns or rows (x needs 1 < x < W - 1). A map without a positive value gives (0, 0).

  Returns:
    (x, y) in heat map pixels, and the maximum.
  """
  maps = jnp.asarray(heatmaps, jnp.float32)
  height, width, count = maps.shape[-3:]
  flat = maps.reshape(*maps.shape[:-3], height * width, count)
  index = jnp.argmax(flat, axis=-2)
  score = jnp.max(flat, axis=-2)
  positive = score > 0
  x, y = jnp.where(positive, index % width, 0), jnp.where(positive, index // width, 0)
  position = jnp.stack([x, y], axis=-1).astype(jnp.float32)
  if quarter_pixel:
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    position += 0.25 * _slopes(flat, x, y, width, inside)
  return position, score


def _slopes(
    flat: Float[Array, '*batch hw k'], x: Num[Array, '*batch k'], y: Num[Array, '*batch k'],
    width: int, inside: Bool[Array, '*batch k'],
) -> Float[Array, '*batch k 2']:
  """Returns the sign of the central difference along x and y at (x, y); 0 where not `inside`."""
  centre = jnp.where(inside, y * width + x, width + 1)

  def at(offset: int) -> Array:
    return jnp.take_along_axis(flat, (centre + offset)[..., None, :], axis=-2)[..., 0, :]

  signs = jnp.sign(jnp.stack([at(1) - at(-1), at(width) - at(-width)], axis=-1))
  return jnp.where(inside[..., None], signs, 0)
