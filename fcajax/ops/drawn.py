"""Drawn filters, the controls that published ablations set against the DCT."""
import functools

import numpy as np


@functools.lru_cache(maxsize=64)
def drawn_basis(height, width, channels, kind, seed):
  """Filters of unit norm drawn with NumPy by `seed`, the same on every machine and device.

  Args:
    kind: 'random', uniform in [0, 1) before scaling (FcaNet's ablation), or 'orthogonal', such
      draws made orthonormal by Gram-Schmidt in blocks of `height * width` channels (OrthoNet).
    seed: of `numpy.random.default_rng`.

  Returns:
    `[height, width, channels]` float32, read-only: the array is shared between callers.

  Sources: Qin et al., "FcaNet", 2021; Salman et al., "OrthoNets: Orthogonal Channel Attention
  Networks", 2023.
  """
  generator = np.random.default_rng(seed)
  filters = generator.random((channels, height * width))
  if kind == 'orthogonal':
    blocks = []
    for start in range(0, channels, height * width):
      q, r = np.linalg.qr(filters[start:start + height * width].T)
      blocks.append((q * np.sign(np.diag(r))).T)
    filters = np.concatenate(blocks)
  filters /= np.linalg.norm(filters, axis=1, keepdims=True)
  basis = filters.T.reshape(height, width, channels).astype(np.float32)
  basis.setflags(write=False)
  return basis
