"""Starting a DCT network from the weights of its RGB sibling, as Xu et al. (CVPR 2020) did.

The stem is dropped. A first layer that takes k coefficients keeps the first k channels of the RGB
network's layer behind the stem where that has so many, and starts afresh where it has fewer (192
coefficients into a ResNet). A gate starts afresh.
"""
import re

import numpy as np
from flax import traverse_util

_FIRST_LAYERS = re.compile(
    r'stage1/block0/(conv1|shortcut_conv|shortcut_norm|depthwise_conv|depthwise_norm|project_conv)/')
_FRESH = re.compile(r'(gate|head)/|stage1/block0/shortcut_')


def is_dct_variables(variables):
  """Whether a network of these variables reads coefficients: it has no stem convolution."""
  return 'stem_conv' not in variables['params']


def adapt_rgb_variables(source, target):
  """Variables for a DCT network out of those of the RGB network with the same stages.

  Args:
    source: {'params', 'batch_stats'} of the RGB network.
    target: {'params', 'batch_stats'} of the freshly initialised DCT network.
  Returns:
    (variables, fresh): a tree like `target`, and the sorted paths ('params/gate/...') that kept
    their initial values: the gate, a head of another width, and first layers that take more
    channels than the RGB network has there.
  Raises:
    ValueError: a layer differs that is neither the first nor the head: another depth or width.
  """
  given = traverse_util.flatten_dict(dict(source), sep='/')
  wanted = traverse_util.flatten_dict(dict(target), sep='/')
  result, fresh, wrong = {}, [], []
  for path, initial in wanted.items():
    place = path.partition('/')[2]
    value = given.get(path)
    sliceable = value is not None and value.ndim == initial.ndim and all(
        have >= want for have, want in zip(value.shape, initial.shape))
    if value is not None and value.shape == initial.shape:
      result[path] = value
    elif _FIRST_LAYERS.match(place) and sliceable:
      result[path] = np.asarray(value)[tuple(slice(size) for size in initial.shape)]
    elif _FIRST_LAYERS.match(place) or _FRESH.match(place):
      result[path] = initial
      fresh.append(path)
    else:
      have = 'nothing' if value is None else list(value.shape)
      wrong.append(f'{path}: {have} for {list(initial.shape)}')
  if wrong:
    raise ValueError('these RGB weights belong to another network; name the RGB sibling of the '
                     'same depth. Differences: ' + '; '.join(wrong[:5])
                     + (f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''))
  return traverse_util.unflatten_dict(result, sep='/'), sorted(fresh)
