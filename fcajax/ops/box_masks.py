"""Mask targets of regions of interest, out of masks that are cut to their truth boxes."""
import jax
import jax.numpy as jnp
import numpy as np

from fcajax.typing import AnyArray, Array, Float, Int, Num


def _overlap(low: Float[Array, ' k'], high: Float[Array, ' k'], bins: int,
             cells: int) -> Float[Array, 'k bins cells']:
  """Returns the share of each of `bins` parts of low..high that lies in each cell of width 1."""
  width = jnp.maximum((high - low) / bins, 1e-6)[:, None, None]
  start = low[:, None, None] + width * jnp.arange(bins)[:, None]
  cell = jnp.arange(cells)
  shared = jnp.minimum(start + width, cell + 1) - jnp.maximum(start, cell)
  return jnp.clip(shared, 0) / width


def box_mask_targets(masks: Num[AnyArray, 'm s s'], truth: Float[AnyArray, 'm 4'],
                     rois: Float[AnyArray, 'k 4'], indices: Int[AnyArray, ' k'],
                     size: int = 28) -> Float[Array, 'k size size']:
  r"""Cuts the mask of a truth box to each region, as the share of a bin that the object covers.

  With the mask M constant in each of its s x s cells, and zero outside the truth box, bin (i, j) of
  a region is

      t_ij = (1 / |B_ij|) \int_{B_ij} M = (A_y M A_x^T)_ij,

  where A_y and A_x hold the share of each bin that lies in each cell. RoIAlign (He et al., Mask
  R-CNN, 2017) of the whole bitmap samples the same mean at a few points. Compare with .5 for
  targets of 0 and 1.

  Args:
    masks: of each truth box: uint8, of which 255 is wholly covered, or shares in 0..1.
    truth: corners x1, y1, x2, y2 of the boxes that the masks fill.
    rois: regions, in the same pixels.
    indices: of the truth box that each region belongs to.
    size: bins a side.
  Returns:
    Shares in 0..1, float32.
  """
  masks, cells = jnp.asarray(masks), masks.shape[-1]
  scale = 1 / 255 if masks.dtype == np.uint8 else 1.0
  box = jnp.asarray(truth, jnp.float32)[indices]
  side = jnp.maximum(box[:, 2:] - box[:, :2], 1e-6)
  low = (rois[:, :2] - box[:, :2]) / side * cells
  high = (rois[:, 2:] - box[:, :2]) / side * cells
  rows = _overlap(low[:, 1], high[:, 1], size, cells)
  columns = _overlap(low[:, 0], high[:, 0], size, cells)
  chosen = masks[indices].astype(jnp.float32) * scale
  precision = jax.lax.Precision.HIGHEST
  partial = jnp.einsum('kis,kst->kit', rows, chosen, precision=precision)
  return jnp.einsum('kit,kjt->kij', partial, columns, precision=precision)
