"""The DCT filters that FcaNet checkpoints store as buffers: which frequencies they are.

A network here computes its filters, so those of the checkpoint must be the same ones: weights
trained behind other frequencies would convert without an error and classify badly.
"""
import numpy as np

from fcajax.ops.dct import GRID, dct_basis, multispectral_basis, scale_frequency
from fcajax.ops.drawn import drawn_basis
from fcajax.ops.frequency_orders import ORDERS

SUFFIX = 'dct_layer.weight'
DEFAULT = 'top16'  # of `MultiSpectralAttention`

# Relative to the largest value: what rounding to bfloat16 costs, and far from another frequency.
_TOLERANCE = 1e-2


def stored_filters(state):
  """The filters in a state dict, {name: `[C, h, w]`}; a buffer of zeros holds none."""
  return {key: np.asarray(value, np.float64) for key, value in state.items()
          if key.endswith(SUFFIX) and value.ndim == 3 and np.any(value)}


def frequencies_of(filters):
  """The frequencies of all filters, as `frequency_indices` takes them.

  Args:
    filters: as `stored_filters` gives them.

  Returns:
    A name such as 'low16' where it has one, else a tuple of (u, v); None where there are no
    filters, they are no DCT filters of unit norm, or the layers differ.
  """
  found = {_pairs(array) for array in filters.values()}
  if len(found) != 1 or None in found:
    return None
  pairs = found.pop()
  names = [f'{order}{len(pairs)}' for order in ('top', 'low', 'bot')
           if tuple(map(tuple, ORDERS[order][:len(pairs)])) == pairs]
  return names[0] if names else pairs


def _pairs(filters):
  """The (u, v) of the channel groups of `[C, h, w]`, or None."""
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


def check_filters(filters, layers):
  """Compares stored filters with those that the network computes.

  Args:
    filters: as `stored_filters` gives them.
    layers: {name: the `MultiSpectralAttention` there, or None}, for the same names.

  Raises:
    ValueError: a layer without such filters, or with others; the message names the frequencies
      of the checkpoint where they can be told.
  """
  for key, array in filters.items():
    layer = layers[key]
    if layer is None:
      raise ValueError(f"'{key}' holds the DCT filters of an FcaNet, but the network has no such "
                       "attention; name an fca_ model, or set attention='fca'")
    channels, height, width = array.shape
    size = layer.filter_size((height, width, channels))
    wanted = None
    if size == (height, width):
      wanted = _computed(layer, height, width, channels).transpose(2, 0, 1)
      if np.abs(wanted - array).max() <= _TOLERANCE * np.abs(wanted).max():
        continue
    raise ValueError(_difference(key, array, size, layer, wanted, frequencies_of(filters)))


def _computed(layer, height, width, channels):
  if layer.basis != 'dct':
    return drawn_basis(height, width, channels, layer.basis, layer.seed)
  basis = multispectral_basis(height, width, layer.frequencies, channels, layer.grid)
  return basis / np.sqrt(height * width) if layer.normalization == 'mean' else basis


def _difference(key, array, size, layer, wanted, frequencies):
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
