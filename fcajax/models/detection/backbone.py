"""A classifier of the registry as the backbone of a detector, with its parameter names."""
import math
import re

import jax
from flax import linen as nn

from fcajax.typing import Array, Float, Num

NORMALIZATIONS = ('frozen', 'frozen_affine', 'batch', 'sync')
_STAGE = re.compile(r'stage(\d+)')


def is_frozen(path: tuple[str, ...], frozen_stages: int) -> bool:
  """Returns True if a module or parameter at `path` of a backbone belongs to a frozen stage.

  `frozen_stages` counts stages behind the stem; 0 freezes the stem alone, -1 nothing.
  """
  for part in path:
    if part.startswith('stem'):
      return frozen_stages >= 0
    if match := _STAGE.fullmatch(part):
      return int(match[1]) <= frozen_stages
  return False


def backbone_features(
    network: nn.Module, x: Num[Array, 'n h w c'], train: bool, frozen_stages: int,
    frozen_norm: bool,
) -> list[tuple[int, Float[Array, 'n _ _ _']]]:
  """Runs a network without a head (`num_classes=0`) and returns the features of its stages.

  Args:
    network: a network of the registry that returns the features of its stages.
    x: its input.
    train: whether the network trains.
    frozen_stages: no gradient flows into the stem and the first stages, and their batch norm keeps
      its statistics; see `is_frozen`.
    frozen_norm: all batch norm keeps its statistics while the network trains.

  Returns:
    (input cells per feature cell, features) of the last stage of each size, finest first.
  """
  def intercept(call, args, kwargs, context):
    name = context.module.name
    if 'train' in kwargs and isinstance(context.module, nn.BatchNorm) and (
        frozen_norm or is_frozen(context.module.path, frozen_stages)):
      kwargs = {**kwargs, 'train': False}
    if name == 'stage1' and frozen_stages == 0:
      args = jax.lax.stop_gradient(args)
    out = call(*args, **kwargs)
    return jax.lax.stop_gradient(out) if name == f'stage{frozen_stages}' else out

  with nn.intercept_methods(intercept):
    _, features = network(x, train=train, capture_features=True)
  stages = {}
  for name, value in features.items():
    if _STAGE.fullmatch(name):
      cells = max(x.shape[1:3]) / max(value.shape[1:3])
      stages[2 ** math.ceil(math.log2(cells))] = value
  return sorted(stages.items())
