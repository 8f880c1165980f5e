"""Identifies the frequencies of the DCT filters that FcaNet checkpoints store as buffers.

A network here computes its filters, so those of the checkpoint must be the same ones: weights
trained behind other frequencies would convert without an error and classify badly.
"""
from collections.abc import Mapping
from typing import Any

import numpy as np

from fcajax.errors import UserError
from fcajax.ops.dct import GRID, dct_basis, drawn_basis, multispectral_basis, scale_frequency
from fcajax.selection.frequencies import ORDERS, frequency_indices
from fcajax.typing import Float

SUFFIX = 'dct_layer.weight'
DEFAULT = 'top16'  # of `MultiSpectralAttention`

# Relative to the largest value: what rounding to bfloat16 costs, and far from another frequency.
_TOLERANCE = 1e-2


Filters = dict[str, Float[np.ndarray, '_ _ _']]


def stored_filters(state: Mapping[str, np.ndarray]) -> Filters:
  """Returns the filters in a state dict, name -> `[C, h, w]`; a buffer of zeros holds none."""
  return {key: np.asarray(value, np.float64) for key, value in state.items()
          if key.endswith(SUFFIX) and value.ndim == 3 and np.any(value)}


def frequencies_of(filters: Filters) -> str | tuple[tuple[int, int], ...] | None:
  """Identifies the frequencies of all filters, in a form that `frequency_indices` takes.

  Args:
    filters: as `stored_filters` gives them.

  Returns:
    A name such as 'low16' if there is one, else a tuple of (u, v); None if there are no filters,
    they are no DCT filters of unit norm, or the layers differ.
  """
  found = {_pairs(array) for array in filters.values()}
  if len(found) != 1 or None in found:
    return None
  pairs = found.pop()
  names = [f'{order}{len(pairs)}' for order in ('top', 'low', 'bot')
           if tuple(map(tuple, ORDERS[order][:len(pairs)])) == pairs]
  return names[0] if names else pairs


def _pairs(filters: Float[np.ndarray, 'c h w']) -> tuple[tuple[int, int], ...] | None:
  """Returns the (u, v) of the channel groups, or None."""
  channels, height, width = filters.shape
  values = np.einsum('chw,hu,wv->cuv', filters, dct_basis(height, dtype=np.float64),
                     dct_basis(width, dtype=np.float64), optimize=True).reshape(channels, -1)
  best = values.argmax(1)
  # In the orthonormal basis a filter is a single 1.
  values[np.arange(channels), best] -= 1
  if np.abs(values).max() > _TOLERANCE:
    return None
  groups = best[np.r_[True, best[1:] != best[:-1]]]
  if channels % len(groups) or (best != np.repeat(groups, channels // len(groups))).any():
    return None
  grid = [{scale_frequency(u, size, points): u for u in range(points)}
          for size, points in ((height, GRID[0]), (width, GRID[1]))]
  pairs = tuple((grid[0].get(int(g) // width), grid[1].get(int(g) % width)) for g in groups)
  return None if any(None in pair for pair in pairs) else pairs


def check_filters(filters: Filters, layers: Mapping[str, Any]) -> None:
  """Compares stored filters with those that the network computes.

  Args:
    filters: as `stored_filters` gives them.
    layers: {name: the `MultiSpectralAttention` there, or None}, for the same names.

  Raises:
    UserError: a layer without such filters, or with others; the message names the frequencies of
      the checkpoint if they can be identified.
  """
  for key, array in filters.items():
    layer = layers[key]
    if layer is None:
      raise UserError(f"'{key}' holds the DCT filters of an FcaNet, but the network has no such "
                      "attention; name an fca_ model, or set attention='fca'")
    channels, height, width = array.shape
    size = layer.filter_size((height, width, channels))
    wanted = None
    if size == (height, width):
      wanted = _computed(layer, height, width, channels).transpose(2, 0, 1)
      if np.abs(wanted - array).max() <= _TOLERANCE * np.abs(wanted).max():
        continue
    raise UserError(_difference(key, array, size, layer, wanted, frequencies_of(filters)))


def _computed(layer: Any, height: int, width: int, channels: int) -> np.ndarray:
  if layer.basis != 'dct':
    return drawn_basis(height, width, channels, layer.basis, layer.seed)
  basis = multispectral_basis(
      height, width, frequency_indices(layer.frequencies, layer.grid), channels, layer.grid)
  return basis / np.sqrt(height * width) if layer.normalization == 'mean' else basis


def _difference(key: str, array: np.ndarray, size: tuple[int, int], layer: Any,
                wanted: np.ndarray | None, frequencies: Any) -> str:
  height, width = array.shape[1:]
  if wanted is None:
    return (f"'{key}' holds DCT filters of {height} x {width}, the network's are "
            f'{size[0]} x {size[1]}; set dct_sizes to those of the checkpoint')
  scale = np.abs(array).max() / np.abs(wanted).max()
  if np.abs(array - scale * wanted).max() <= _TOLERANCE * np.abs(array).max():
    if layer.normalization == 'mean' and abs(scale / np.sqrt(height * width) - 1) < _TOLERANCE:
      way = '--set normalization=ortho'
    elif layer.normalization == 'ortho' and abs(scale * np.sqrt(height * width) - 1) < _TOLERANCE:
      way = '--set normalization=mean'
    else:
      way = '--set learnable=True, which takes the filters of the checkpoint as parameters'
    return (f"the DCT filters '{key}' are {scale:.3g} times the network's "
            f'(normalization={layer.normalization!r}); use {way}')
  if isinstance(frequencies, str):
    way = f'--set frequencies={frequencies}'
  elif frequencies:
    listed = ','.join(f'({u},{v})' for u, v in frequencies)
    way = f"--set 'frequencies=[{listed}]'"
  else:
    way = ('--set frequencies= with those that it was trained with, or --set learnable=True, '
           'which takes its filters as parameters')
  other = f'frequencies={layer.frequencies!r}' if layer.basis == 'dct' else f'basis={layer.basis!r}'
  return f"the DCT filters '{key}' are not those of the network's {other}; use {way}"
