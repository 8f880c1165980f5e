"""Starting a DCT network from the weights of its RGB sibling, as Xu et al. (CVPR 2020) did.

The stem is dropped. A first layer that takes k coefficients keeps the first k input channels of the
layer behind the RGB network's stem if that has as many, and starts from its initial values if it
has fewer (192 coefficients into a ResNet). A gate starts from its initial values.
"""
import re
from typing import Any

import numpy as np
from flax import traverse_util

from fcajax import trees
from fcajax.errors import UserError

_FIRST_LAYERS = re.compile(
    r'stage1/block0/(conv1|shortcut_conv|shortcut_norm|depthwise_conv|depthwise_norm|project_conv)/')
_FRESH = re.compile(r'(gate|head)/|stage1/block0/shortcut_')


def is_dct_variables(variables: dict[str, Any]) -> bool:
  """Returns True if the network of these variables reads coefficients: it has no stem."""
  return 'stem_conv' not in variables['params']


def adapt_rgb_variables(
    source: dict[str, Any], target: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Makes variables for a DCT network out of those of the RGB network with the same stages.

  Args:
    source: {'params', 'batch_stats'} of the RGB network.
    target: {'params', 'batch_stats'} of the freshly initialised DCT network.

  Returns:
    (variables, fresh): a tree like `target`, and the sorted paths ('params/gate/...') that kept
    their initial values: the gate, a head of another width, and first layers that take more
    channels than the RGB network has there.

  Raises:
    UserError: a layer differs that is neither the first nor the head: another depth or width.
  """
  given, wanted = trees.by_name(dict(source)), trees.by_name(dict(target))
  result, fresh = {}, []
  for path, initial in wanted.items():
    layer = path.partition('/')[2]
    value = given.get(path)
    sliceable = value is not None and value.ndim == initial.ndim and all(
        have >= want for have, want in zip(value.shape, initial.shape))
    if value is not None and value.shape == initial.shape:
      result[path] = value
    elif _FIRST_LAYERS.match(layer) and sliceable:
      result[path] = np.asarray(value)[tuple(slice(size) for size in initial.shape)]
    elif _FIRST_LAYERS.match(layer) or _FRESH.match(layer):
      result[path] = initial
      fresh.append(path)
  wrong = trees.differences(
      trees.shapes({path: value for path, value in given.items() if path in wanted}),
      trees.shapes(wanted), ignore=result.__contains__)
  if wrong:
    raise UserError('these RGB weights belong to another network; name the RGB sibling of the '
                    f'same depth. Differences:\n{trees.listing(wrong, limit=5)}')
  return traverse_util.unflatten_dict(result, sep='/'), sorted(fresh)
