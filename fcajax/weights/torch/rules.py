"""What the rule modules of the network families share: targets, transforms, common names."""
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fcajax.typing import NumpyArray, Shaped

IGNORE = object()  # the key holds nothing to import: a counter, a constant basis

Shape = tuple[int, ...]
Transform = Callable[[NumpyArray, Shape], NumpyArray | None]


class Target(NamedTuple):
  """The destination of a PyTorch tensor: `path` in the variables, through `transform`.

  Attributes:
    path: starts with the collection: ('params', 'stage1', 'block0', 'conv1', 'kernel').
    transform: takes the NumPy array and the shape wanted, and returns the array, or None if the
      two cannot fit.
  """
  path: tuple[str, ...]
  transform: Transform


def conv(array: NumpyArray, shape: Shape) -> Shaped[np.ndarray, 'kh kw i o'] | None:
  """Transposes a kernel `[out, in, kh, kw]` to `[kh, kw, in, out]`."""
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else None


def dense(array: NumpyArray, shape: Shape) -> Shaped[np.ndarray, 'i o'] | None:
  """Transposes a matrix `[out, in]`, or a 1x1 convolution of that, to `[in, out]`."""
  if math.prod(array.shape[2:]) != 1:
    return None
  return array.reshape(array.shape[:2]).T


def vector(array: NumpyArray, shape: Shape) -> NumpyArray:
  """Returns the array as it is."""
  return array


def flat(array: NumpyArray, shape: Shape) -> NumpyArray | None:
  """Reshapes to `shape` if the sizes agree: one-channel filters such as ECA's."""
  return array.reshape(shape) if array.size == math.prod(shape) else None


_NORM = {
    'weight': ('params', 'scale'),
    'bias': ('params', 'bias'),
    'running_mean': ('batch_stats', 'mean'),
    'running_var': ('batch_stats', 'var'),
}


def norm_target(path: tuple[str, ...], leaf: str) -> Target | None:
  """Returns the target of PyTorch's `leaf` of a batch norm at module path `path`, or None."""
  if leaf not in _NORM:
    return None
  collection, name = _NORM[leaf]
  return Target((collection, *path, name), vector)


def conv_target(path: tuple[str, ...], leaf: str) -> Target | None:
  """Returns the target of a convolution's `leaf`."""
  return _kernel_target(path, leaf, conv)


def dense_target(path: tuple[str, ...], leaf: str) -> Target | None:
  """Returns the target of the `leaf` of a matrix or 1x1 convolution that is a Dense layer here."""
  return _kernel_target(path, leaf, dense)


def _kernel_target(path: tuple[str, ...], leaf: str, transform: Transform) -> Target | None:
  if leaf == 'weight':
    return Target(('params', *path, 'kernel'), transform)
  if leaf == 'bias':
    return Target(('params', *path, 'bias'), vector)
  return None
