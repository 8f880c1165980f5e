"""PyTorch names of SimpleBaseline: the published code's, mmpose's, and torchvision backbones alone.

    published                  mmpose                             here
    BACKBONE                   backbone.BACKBONE                  backbone/...
    deconv_layers.0, .3, .6    keypoint_head, head: the same      deconv1, deconv2, deconv3
    deconv_layers.1, .4, .7    keypoint_head, head: the same      deconv1_norm, ...
    final_layer                keypoint_head, head: the same      head

BACKBONE stands for the names of the backbone's own family. A classifier's weights go into the
backbone alone: give `from_torch` the backbone.
"""
import re

import numpy as np

from fcajax.weights.torch.backbone_rules import backbone_rules
from fcajax.weights.torch.rules import IGNORE, Target, conv_target, norm_target

_DECONV = re.compile(r'deconv_layers\.(\d+)\.(\w+)')
_HEADS = ('keypoint_head.', 'head.')
# A convolution, a norm and an activation each.
_LAYERS_A_STEP = 3


def rename(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Spells mmpose's names as the published code does."""
  renamed = {}
  for key, value in state.items():
    for prefix in ('backbone.', *_HEADS):
      key = key.removeprefix(prefix)
    renamed[key] = value
  return renamed


def target(key: str, model):
  """Returns where PyTorch's `key` goes; see `fcajax.weights.torch.from_torch`."""
  if key.endswith('num_batches_tracked'):
    return IGNORE
  match = _DECONV.fullmatch(key)
  if match:
    step, kind = divmod(int(match[1]), _LAYERS_A_STEP)
    return _deconv_target(f'deconv{step + 1}', kind, match[2])
  module, _, leaf = key.rpartition('.')
  if module == 'final_layer':
    return conv_target(('head',), leaf)
  inner = backbone_rules(model.backbone).target(key, model.backbone)
  if inner is None or inner is IGNORE:
    return inner
  collection, *path = inner.path
  return Target((collection, 'backbone', *path), inner.transform)


def _deconv_target(name: str, kind: int, leaf: str) -> Target | None:
  if kind == 1:
    return norm_target((f'{name}_norm',), leaf)
  if kind == 0 and leaf == 'weight':
    return Target(('params', name, 'kernel'), _transposed_conv)
  return None


def _transposed_conv(array, shape):
  """Kernel `[in, out, kh, kw]` -> `[kh, kw, in, out]`, turned by half a circle.

  PyTorch spreads each input over the output with the kernel as it is; here the input with zeros in
  between is correlated with the kernel.
  """
  return array.transpose(2, 3, 0, 1)[::-1, ::-1] if array.ndim == 4 else None


def check(state: dict[str, np.ndarray], model) -> None:
  """Raises UserError where ignored keys contradict the backbone."""
  rules = backbone_rules(model.backbone)
  if hasattr(rules, 'check'):
    rules.check({key: value for key, value in state.items() if not _is_head(key)}, model.backbone)


def input_shape(model, state: dict[str, np.ndarray]) -> tuple[int, ...]:
  """Returns the shape of an input that `model.init` takes."""
  return backbone_rules(model.backbone).input_shape(model.backbone, state)


def infer_overrides(state: dict[str, np.ndarray]) -> dict[str, int]:
  """Reads `num_keypoints` off the last layer."""
  last = next((state[key] for key in state if key.endswith('final_layer.weight')), None)
  return {} if last is None else {'num_keypoints': int(last.shape[0])}


def _is_head(key: str) -> bool:
  return key.startswith(('deconv_layers.', 'final_layer.'))
