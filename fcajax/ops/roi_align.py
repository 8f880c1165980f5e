"""RoIAlign: features of boxes by bilinear interpolation, as two products with small matrices."""
import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from fcajax.ops.boxes import box_levels
from fcajax.typing import Array, Bool, Float, Int

# Adaptive sampling takes at most this many samples along a side of a bin, so that a box with
# infinite corners ends: exact for boxes up to 4,096 feature cells times the output size.
MAX_SAMPLES = 4096
# Sides of the squares of feature cells that most boxes fit into: by the rule of levels, a box of
# the finer levels covers at most 28 x 28 cells, or 20 x 40.
WINDOWS = (32, 64)


def chunk_size() -> int:
  """Returns how many boxes are taken at once: as many as stay in a CPU's cache, or more."""
  return 16 if jax.default_backend() == 'cpu' else 128


def interpolation_matrix(
    start: Float[Array, '*batch'], length: Float[Array, '*batch'], cells: int, bins: int,
    sampling_ratio: int, origin: Int[Array, '*batch'] | None = None, window: int | None = None,
) -> Float[Array, '*batch bins _']:
  """Builds the matrix that averages bilinear samples of a row of cells into bins.

      W[i, h] = 1 / S  sum_s hat(clip(p_is) - h),  p_is = start + (i + (s + 1/2) / S) length / bins

  with hat(d) = max(0, 1 - |d|), clip to [0, cells - 1], and nothing for samples outside
  [-1, cells]. S is `sampling_ratio`, or for 0 the number of cells that a bin touches,
  ceil(length / bins): a loop that runs as often as the longest box needs, so that every box gets
  exactly its samples (up to `MAX_SAMPLES`). No gradient flows to the boxes. With `origin` and
  `window` the columns are the `window` cells from `origin` on.
  """
  start, length = lax.stop_gradient((start[..., None], length[..., None]))
  step = length / bins
  if sampling_ratio:
    samples = jnp.full_like(step, sampling_ratio)
  else:
    samples = jnp.clip(jnp.nan_to_num(jnp.ceil(step)), 0, MAX_SAMPLES)
  first = start + jnp.arange(bins, dtype=start.dtype) * step
  cell = jnp.arange(window or cells, dtype=start.dtype)
  if origin is not None:
    cell = cell + origin[..., None, None]

  def add(index, matrix):
    position = first + (index + 0.5) * (step / jnp.maximum(samples, 1))
    inside = (position >= -1) & (position <= cells) & (index < samples)
    clipped = jnp.clip(position, 0, cells - 1)
    hat = jnp.maximum(1 - jnp.abs(clipped[..., None] - cell), 0)
    return matrix + jnp.where(inside[..., None], hat, 0)

  matrix = jnp.zeros((*first.shape, window or cells), start.dtype)
  count = sampling_ratio or samples.max(initial=0).astype(jnp.int32)
  matrix = lax.fori_loop(0, count, lambda i, m: add(jnp.asarray(i, start.dtype), m), matrix)
  return matrix / jnp.maximum(samples, 1)[..., None]


def roi_align(
    features: Float[Array, 'h w c'], boxes: Float[Array, 'r 4'], output_size: int,
    scale: float | Float[Array, ''] = 1.0, sampling_ratio: int = 0, aligned: bool = True,
    valid: Bool[Array, ' r'] | None = None,
) -> Float[Array, 'r s s c']:
  """Interpolates the features of one image inside each box.

      out[r] = Wy[r] F Wx[r]^T

  for every channel, since the mean over a bin's grid of bilinear samples separates into rows and
  columns; see `interpolation_matrix`. The boxes are taken in chunks, ordered by their extent:
  where all boxes of a chunk fit into a square window (`WINDOWS`), F is that window of each box,
  else it is the whole map. The result is the same, and exact for boxes of any size.

  Args:
    features: one feature map.
    boxes: in pixels of the image.
    output_size: bins along each side.
    scale: feature cells per image pixel.
    sampling_ratio: samples along each side of a bin; 0, one for each cell that the bin touches.
    aligned: pixel centres at half-integers (mmdetection); False is the first version, shifted by
      half a cell and with boxes of at least one cell (torchvision's default).
    valid: False gives zeros.

  Returns:
    `r` squares in the dtype of `features`; the sums are in float32.

  Source: He et al., "Mask R-CNN", ICCV 2017, section 3.
  """
  height, width, channels = features.shape
  corners = lax.stop_gradient(boxes).astype(jnp.float32) * scale - (0.5 if aligned else 0.0)
  size = corners[:, 2:] - corners[:, :2]
  if not aligned:
    size = jnp.maximum(size, 1)

  count = boxes.shape[0]
  kind, windows = _window_kinds(corners, size, (height, width))
  if valid is not None:
    kind = jnp.where(valid, kind, 0)
  align = functools.partial(
      _align, features, output_size=output_size, sampling_ratio=sampling_ratio)
  if not windows and count <= 8 * chunk_size():
    return align(corners, size, kind, window=None)
  chunk = min(chunk_size(), count)
  order = jnp.argsort(kind, stable=True)
  chunks = tuple(
      jnp.pad(x[order], ((0, -count % chunk),) + ((0, 0),) * (x.ndim - 1)).reshape(
          -1, chunk, *x.shape[1:]) for x in (corners, size, kind))
  branches = [lambda *box: jnp.zeros((chunk, output_size, output_size, channels), features.dtype)]
  branches += [functools.partial(align, window=window) for window in (*windows, None)]
  out = lax.map(lambda c: lax.switch(c[2].max(), branches, *c), chunks)
  out = out.reshape(-1, *out.shape[2:])[:count]
  return out[jnp.argsort(order)]


def _window_kinds(corners, size, shape):
  """Which window each box needs, and the windows: kind k is window k - 1, the last the whole map.

  Kind 0 is left for boxes that are not wanted.
  """
  last = jnp.asarray([shape[1] - 1, shape[0] - 1], jnp.float32)
  low = jnp.floor(jnp.clip(corners[:, :2], 0, last))
  high = jnp.minimum(jnp.floor(jnp.clip(corners[:, :2] + size, 0, last)) + 1, last)
  extent = (high - low + 1).max(axis=1)
  windows = [w for w in WINDOWS if w < min(shape)]
  kind = 1 + sum((extent > w).astype(jnp.int32) for w in windows) + jnp.zeros(
      extent.shape, jnp.int32)
  return kind, windows


def _align(features, corners, size, kind, output_size, sampling_ratio, window):
  """RoIAlign of one chunk by windows of `window` cells, or by the whole map."""
  height, width, channels = features.shape
  origin, field, maps = (None, None), features, 'hwc'
  if window:
    limit = jnp.asarray([width, height]) - window
    origin = jnp.clip(jnp.floor(corners[:, :2]), 0, limit).astype(jnp.int32).T
    maps = 'rhwc'
    field = jax.vmap(lambda x, y: lax.dynamic_slice(
        features, (y, x, 0), (window, window, channels)))(*origin)
  rows, columns = (
      interpolation_matrix(corners[:, axis], size[:, axis], cells, output_size, sampling_ratio,
                           origin[axis], window) for axis, cells in ((1, height), (0, width)))
  rows = jnp.where(kind[:, None, None] > 0, rows, 0)
  partial = jnp.einsum(f'rih,{maps}->riwc', rows.astype(features.dtype), field,
                       precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
  return jnp.einsum('rjw,riwc->rijc', columns, partial,
                    precision=lax.Precision.HIGHEST).astype(features.dtype)


def multilevel_roi_align(
    pyramid: Sequence[Float[Array, 'n _ _ c']], strides: Sequence[int],
    boxes: Float[Array, 'n r 4'], output_size: int, sampling_ratio: int = 0, aligned: bool = True,
    level_rule: Literal['mmdet', 'torchvision'] = 'mmdet',
    valid: Bool[Array, 'n r'] | None = None,
) -> Float[Array, 'n r s s c']:
  """Takes each box from the level of a feature pyramid that its area chooses.

  Args:
    pyramid: feature maps of a batch, finest first.
    strides: image pixels per feature cell of each.
    boxes: in pixels, `r` for each image.
    output_size, sampling_ratio, aligned: as in `roi_align`.
    level_rule: as `rule` of `box_levels`.
    valid: False gives zeros.
  """
  levels = box_levels(boxes, len(strides), level_rule)
  valid = jnp.ones(levels.shape, bool) if valid is None else valid

  def one_image(image):
    maps, boxes, levels, valid = image
    return sum(
        roi_align(features, boxes, output_size, 1 / stride, sampling_ratio, aligned,
                  valid & (levels == index))
        for index, (features, stride) in enumerate(zip(maps, strides, strict=True)))

  # A loop over the images and no vmap, which would run every branch of a chunk.
  return lax.map(one_image, (tuple(pyramid), boxes, levels, valid))
