"""The JPEG block transform: pixels to 8 x 8 block-DCT coefficients and back, on the device.

In a coefficient array channel `64 c + 8 u + v` holds vertical frequency u and horizontal frequency
v of component c. Transforms run in float32 whatever the input's dtype, because the DC term is much
larger than the others.
"""
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.ops.dct import dct_basis
from fcajax.typing import AnyArray, Array, Float, Int, Real, Shaped

_HIGHEST = jax.lax.Precision.HIGHEST  # a GPU's TF32 would keep ten mantissa bits


def pad_to_blocks(
    x: Shaped[AnyArray, 'n h w c'], block: int = 8) -> Shaped[Array, 'n padded_h padded_w c']:
  """Repeats the last row and column up to the next multiple of `block`, as JPEG encoders do."""
  height, width = x.shape[1:3]
  return jnp.pad(x, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)), mode='edge')


def block_dct(
    x: Real[AnyArray, '...'], block: int = 8, indices: Sequence[Sequence[int]] | None = None,
    level_shift: float = 128.0) -> Float[Array, 'n rows columns k']:
  """Computes the orthonormal DCT-II of every block: `F = D (X - level_shift) D^T`.

  For YCbCr pixels and `block=8` these are JPEG's dequantised coefficients (ITU-T T.81, A.3.3). One
  convolution of stride `block` for each component computes the selected coefficients alone.

  Args:
    x: pixels in 0..255, `[N, H, W, C]`; H and W are multiples of `block`.
    block: block size in pixels.
    indices: for each of the C components the coefficients 8u + v to compute, in order (an empty
      list drops the component); None computes all `block * block` of each.
    level_shift: subtracted from every pixel first; 128 as in JPEG, 0 for centred planes.

  Returns:
    Coefficients `[N, H/block, W/block, K]`, components one after another; K is `C * block**2` or
    the number of `indices`.

  Raises:
    UserError: H or W is no multiple of `block`; indices repeat, lie outside the block or come in
      the wrong number of lists.
  """
  if x.ndim != 4:
    raise UserError(f'block_dct needs [N, H, W, C]; got shape {x.shape}')
  channels = x.shape[-1]
  _check_blocks(*x.shape[1:3], block)
  if indices is None:
    indices = (tuple(range(block * block)),) * channels
  indices = _checked_indices(indices, channels, block)
  x = jnp.asarray(x).astype(jnp.float32) - level_shift
  return jnp.concatenate([
      jax.lax.conv_general_dilated(
          x[..., c:c + 1], _filters(chosen, block)[:, :, None], (block, block), 'VALID',
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=_HIGHEST)
      for c, chosen in enumerate(indices) if chosen], axis=-1)


def block_idct(
    coefficients: Real[AnyArray, 'n rows columns k'], block: int = 8, level_shift: float = 128.0,
) -> Float[Array, 'n {block}*rows {block}*columns components']:
  """Computes the pixels from all coefficients of every block: the inverse of `block_dct`.

  The pixels are neither rounded nor clipped. `level_shift` is added to each of them.

  Raises:
    UserError: the channels are no multiple of `block**2`.
  """
  n, rows, columns, width = coefficients.shape
  if width % (block * block):
    raise UserError(f'{width} channels are not whole {block} x {block} blocks; the inverse needs '
                    f'all {block * block} coefficients of each component')
  x = jnp.asarray(coefficients).astype(jnp.float32)
  x = x.reshape(n, rows, columns, width // (block * block), block, block)
  basis = _basis(block).astype(np.float32)
  x = jnp.einsum('nhwcuv,ui->nhiwcv', x, basis, precision=_HIGHEST)
  x = jnp.einsum('nhiwcv,vj->nhiwjc', x, basis, precision=_HIGHEST)
  return x.reshape(n, rows * block, columns * block, -1) + level_shift


@functools.cache
def zigzag_order(block: int = 8) -> Int[np.ndarray, ' count']:
  """Returns the row-major indices `block * u + v` in zigzag order (ITU-T T.81, figure A.6).

  Element k is the row-major index of the k-th zigzag coefficient. The array is read-only.
  """
  def rank(index):
    u, v = divmod(index, block)
    return u + v, u if (u + v) % 2 else v
  order = np.array(sorted(range(block * block), key=rank))
  order.setflags(write=False)
  return order


def _basis(block):
  """The DCT-II as `[frequency, position]`, float64."""
  return dct_basis(block, dtype=np.float64).T


def _filters(indices, block):
  """The chosen two-dimensional basis images, float32 `[block, block, len(indices)]`."""
  basis = _basis(block)
  u, v = np.divmod(np.asarray(indices, int), block)
  return np.einsum('ki,kj->ijk', basis[u], basis[v]).astype(np.float32)


def _check_blocks(height, width, block):
  if height % block or width % block or not height or not width:
    raise UserError(
        f'an image of {height} x {width} does not split into {block} x {block} blocks; '
        f'resize it to multiples of {block} or call pad_to_blocks first')


def _checked_indices(indices, channels, block):
  """One index tuple a component."""
  indices = tuple(tuple(int(i) for i in component) for component in indices)
  if len(indices) != channels:
    raise UserError(f'{len(indices)} lists of coefficients for {channels} components; '
                    'give one list a component, an empty one for none')
  for component in indices:
    bad = [i for i in component if not 0 <= i < block * block]
    if bad or len(set(component)) != len(component):
      raise UserError(f'coefficients {list(component)} must be distinct and within '
                      f'0..{block * block - 1} (8u + v); remove {bad or "the repeated ones"}')
  if not any(indices):
    raise UserError('no coefficient is selected; give at least one index')
  return indices
