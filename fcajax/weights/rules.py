"""What the rule modules of the network families share: targets, transforms, common names."""
import math
from collections.abc import Callable
from typing import NamedTuple

IGNORE = object()  # the key holds nothing to import: a counter, a constant basis


class Target(NamedTuple):
  """Where a PyTorch tensor goes: `path` in the variables, through `transform(array, shape)`.

  `path` starts with the collection: ('params', 'stage1', 'block0', 'conv1', 'kernel').
  `transform` gets the NumPy array and the shape wanted, and gives the array, or None where the
  two can not fit.
  """
  path: tuple[str, ...]
  transform: Callable


def conv(array, shape):
  """Kernel `[out, in, kh, kw]` -> `[kh, kw, in, out]`."""
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else None


def dense(array, shape):
  """Matrix `[out, in]`, or a 1x1 convolution of that, -> `[in, out]`."""
  if math.prod(array.shape[2:]) != 1:
    return None
  return array.reshape(array.shape[:2]).T


def vector(array, shape):
  """As it is."""
  return array


def flat(array, shape):
  """Reshaped to `shape` where the sizes agree: one-channel filters such as ECA's."""
  return array.reshape(shape) if array.size == math.prod(shape) else None


_NORM = {
    'weight': ('params', 'scale'),
    'bias': ('params', 'bias'),
    'running_mean': ('batch_stats', 'mean'),
    'running_var': ('batch_stats', 'var'),
}


def norm_target(path, leaf):
  """A batch norm at module path `path`: PyTorch's `leaf` name -> Target, or None."""
  if leaf not in _NORM:
    return None
  collection, name = _NORM[leaf]
  return Target((collection, *path, name), vector)


def conv_target(path, leaf):
  """A convolution at module path `path`."""
  return _kernel_target(path, leaf, conv)


def dense_target(path, leaf):
  """A matrix or a 1x1 convolution that is a Dense layer here."""
  return _kernel_target(path, leaf, dense)


def _kernel_target(path, leaf, transform):
  if leaf == 'weight':
    return Target(('params', *path, 'kernel'), transform)
  if leaf == 'bias':
    return Target(('params', *path, 'bias'), vector)
  return None
