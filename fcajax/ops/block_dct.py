"""The JPEG block transform: pixels to 8 x 8 block-DCT coefficients and back, on the device.

A coefficient array is `[N, H/8, W/8, 64 C]`: channel `64 c + 8 u + v` holds vertical frequency u
and horizontal frequency v of component c. Transforms run in float32 whatever the input's dtype,
because the DC term dwarfs the others.
"""
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.ops.dct import dct_basis

_HIGHEST = jax.lax.Precision.HIGHEST  # a GPU's TF32 would keep ten mantissa bits
METHODS = ('auto', 'separable', 'matmul', 'conv')


def _basis(block):
  """The DCT-II as `[frequency, position]`, float64."""
  return dct_basis(block, dtype=np.float64).T


def _check_blocks(height, width, block):
  if height % block or width % block or not height or not width:
    raise ValueError(
        f'an image of {height} x {width} does not split into {block} x {block} blocks; '
        f'resize it to multiples of {block} or call pad_to_blocks first')


def pad_to_blocks(x, block=8):
  """Repeats the last row and column up to the next multiple of `block`, as JPEG encoders do.

  Args:
    x: `[N, H, W, C]`.
    block: block size.
  Returns:
    `[N, ceil(H / block) block, ceil(W / block) block, C]`.
  """
  height, width = x.shape[1:3]
  return jnp.pad(x, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)), mode='edge')


def _checked_indices(indices, channels, block):
  """One index tuple a component, or None for all of them."""
  if indices is None:
    return None
  indices = tuple(tuple(int(i) for i in component) for component in indices)
  if len(indices) != channels:
    raise ValueError(f'{len(indices)} lists of coefficients for {channels} components; '
                     'give one list a component, an empty one for none')
  for component in indices:
    bad = [i for i in component if not 0 <= i < block * block]
    if bad or len(set(component)) != len(component):
      raise ValueError(f'coefficients {list(component)} must be distinct and within '
                       f'0..{block * block - 1} (8u + v); remove {bad or "the repeated ones"}')
  if not any(indices):
    raise ValueError('no coefficient is selected; give at least one index')
  return indices


def _separable(x, block):
  """Rows then columns: 2 x `block` multiplications a coefficient."""
  n, height, width, channels = x.shape
  basis = _basis(block).astype(np.float32)
  x = x.reshape(n, height // block, block, width // block, block, channels)
  x = jnp.einsum('nhiwjc,vj->nhiwcv', x, basis, precision=_HIGHEST)
  x = jnp.einsum('nhiwcv,ui->nhwcuv', x, basis, precision=_HIGHEST)
  return x.reshape(n, height // block, width // block, channels * block * block)


def _filters(indices, block):
  """The chosen two-dimensional basis images, float32 `[block, block, len(indices)]`."""
  basis = _basis(block)
  u, v = np.divmod(np.asarray(indices, int), block)
  return np.einsum('ki,kj->ijk', basis[u], basis[v]).astype(np.float32)


def _matmul(x, indices, block):
  """One matrix product a component with only the selected columns."""
  n, height, width, channels = x.shape
  x = x.reshape(n, height // block, block, width // block, block, channels)
  x = x.transpose(5, 0, 1, 3, 2, 4).reshape(
      channels, n, height // block, width // block, block * block)
  return jnp.concatenate([
      jnp.einsum('nhwp,pk->nhwk', x[c], _filters(chosen, block).reshape(block * block, -1),
                 precision=_HIGHEST)
      for c, chosen in enumerate(indices) if chosen], axis=-1)


def _conv(x, indices, block):
  """One convolution of stride `block` a component with only the selected filters."""
  return jnp.concatenate([
      jax.lax.conv_general_dilated(
          x[..., c:c + 1], _filters(chosen, block)[:, :, None], (block, block), 'VALID',
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=_HIGHEST)
      for c, chosen in enumerate(indices) if chosen], axis=-1)


def block_dct(x, block=8, indices: Sequence[Sequence[int]] | None = None, level_shift=128.0,
              method='auto'):
  """Orthonormal DCT-II of every block: `F = D (X - level_shift) D^T`.

  For YCbCr pixels and `block=8` these are JPEG's dequantised coefficients (ITU-T T.81, A.3.3).

  Args:
    x: pixels in 0..255, `[N, H, W, C]`, any real dtype; H and W multiples of `block`.
    block: block size.
    indices: for each of the C components the coefficients `8u + v` to compute, in order (an empty
      list drops the component); None computes all `block * block` of each.
    level_shift: subtracted from every pixel first; 128 as JPEG, 0 for centred planes.
    method: 'separable' (rows, then columns, then a selection), 'matmul' (one product with the
      selected basis images), 'conv' (the same as a strided convolution) or 'auto'.
  Returns:
    Coefficients `[N, H/block, W/block, K]` float32, components one after another; K is
    `C * block**2` or the number of `indices`.
  Raises:
    ValueError: H or W is no multiple of `block`; indices repeat, lie outside the block or come in
      the wrong number of lists; unknown method.
  """
  x = jnp.asarray(x)
  if x.ndim != 4:
    raise ValueError(f'block_dct needs [N, H, W, C]; got shape {x.shape}')
  channels = x.shape[-1]
  _check_blocks(*x.shape[1:3], block)
  if method not in METHODS:
    raise ValueError(f'method={method!r} is unknown; use one of {METHODS}')
  indices = _checked_indices(indices, channels, block)
  x = x.astype(jnp.float32) - level_shift
  if method == 'auto':
    method = 'conv'
  if method == 'separable':
    x = _separable(x, block)
    if indices is None:
      return x
    return x[..., np.array([c * block * block + i
                            for c, chosen in enumerate(indices) for i in chosen])]
  if indices is None:
    indices = (tuple(range(block * block)),) * channels
  return (_matmul if method == 'matmul' else _conv)(x, indices, block)


def block_idct(coefficients, block=8, level_shift=128.0):
  """Pixels from all coefficients of every block, the inverse of `block_dct`.

  Args:
    coefficients: `[N, H/block, W/block, C * block**2]`.
    block: block size.
    level_shift: added to every pixel.
  Returns:
    `[N, H, W, C]` float32, neither rounded nor clipped.
  Raises:
    ValueError: the channels are no multiple of `block**2`.
  """
  n, rows, columns, width = coefficients.shape
  if width % (block * block):
    raise ValueError(f'{width} channels are not whole {block} x {block} blocks; the inverse needs '
                     f'all {block * block} coefficients of each component')
  x = jnp.asarray(coefficients).astype(jnp.float32)
  x = x.reshape(n, rows, columns, width // (block * block), block, block)
  basis = _basis(block).astype(np.float32)
  x = jnp.einsum('nhwcuv,ui->nhiwcv', x, basis, precision=_HIGHEST)
  x = jnp.einsum('nhiwcv,vj->nhiwjc', x, basis, precision=_HIGHEST)
  return x.reshape(n, rows * block, columns * block, -1) + level_shift


@functools.cache
def zigzag_order(block=8):
  """Row-major indices `block * u + v` in zigzag order (ITU-T T.81, figure A.6).

  Returns:
    int array `[block**2]`: element k is the row-major index of the k-th zigzag coefficient.
  """
  def place(index):
    u, v = divmod(index, block)
    return u + v, u if (u + v) % 2 else v
  order = np.array(sorted(range(block * block), key=place))
  order.setflags(write=False)
  return order


def _reorder(x, order):
  if x.shape[-1] % len(order):
    raise ValueError(f'{x.shape[-1]} channels are not whole blocks of {len(order)} coefficients')
  blocks = x.reshape(*x.shape[:-1], -1, len(order))
  return blocks[..., order].reshape(x.shape)


def to_zigzag(coefficients, block=8):
  """Row-major to zigzag order within each component, `[..., C * block**2]`."""
  return _reorder(coefficients, zigzag_order(block))


def from_zigzag(coefficients, block=8):
  """Zigzag to row-major order within each component, `[..., C * block**2]`."""
  return _reorder(coefficients, np.argsort(zigzag_order(block)))
