"""PyTorch names of the DCT ResNets, their gate, and MobileNetV2 with either input.

    model.0.1.conv1, .downsample.0     stage1/block1/conv1, shortcut_conv      (DCT ResNet)
    inp_GM.inp_gate.0, inp_gate.1      gate/mix, gate/norm                     (gate)
    inp_GM.inp_gate_l                  gate/logits_kernel, logits_bias
    features.0.0, features.0.1         stem_conv, stem_norm                    (MobileNetV2)
    features.3.conv.3 (or .conv.1.0)   stage2/block1/depthwise_conv
    conv.0, features.18.0              head_conv
    blocks.1.1.conv_dw, conv_stem      stage2/block1/depthwise_conv, stem_conv (timm)

The DCT MobileNetV2 is the RGB one without its first feature, so its features count from 0.
"""
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from fcajax.models.backbones.mobilenet import STAGES
from fcajax.selection.coefficients import SUBSETS, coefficient_subset
from fcajax.weights.torch import names_resnet
from fcajax.weights.torch.rules import IGNORE, Target, conv_target, dense_target, flat, norm_target

T = TypeVar('T')

_GATE = re.compile(r'(?:.*\.)?inp_gate(_l|\.0|\.1)\.(\w+)')
_STAGE_BLOCK = re.compile(r'model\.(\d+)\.(\d+)\.(.+)')
_FEATURE = re.compile(r'features\.(\d+)\.(.+)')
_TIMM_BLOCK = re.compile(r'blocks\.(\d+)\.(\d+)\.(.+)')
_BLOCKS = [(stage + 1, block) for stage, row in enumerate(STAGES) for block in range(row[2])]

# Names of the layers inside a block: published code, timm.
_EXPANDED = {
    'expand': (('conv.0', 'conv.1'), ('conv_pw', 'bn1')),
    'depthwise': (('conv.3', 'conv.4'), ('conv_dw', 'bn2')),
    'project': (('conv.6', 'conv.7'), ('conv_pwl', 'bn3')),
}
_UNEXPANDED = {
    'depthwise': (('conv.0', 'conv.1'), ('conv_dw', 'bn1')),
    'project': (('conv.3', 'conv.4'), ('conv_pw', 'bn2')),
}
_TORCHVISION_LAYER = re.compile(r'(features\.\d+)\.conv\.(\d)(?:\.(\d))?\.(\w+)')

check = names_resnet.check


def rename(state: Mapping[str, T]) -> dict[str, T]:
  """Renames torchvision's names of MobileNetV2's blocks to those of the published code.

  torchvision groups a convolution with its norm, so that `conv.3` of a block is a norm there and a
  convolution here; a key alone does not tell.
  """
  grouped = {match[1] for match in map(_TORCHVISION_LAYER.fullmatch, state) if match and match[3]}
  expanded = {match[1] for match in map(_TORCHVISION_LAYER.fullmatch, state)
              if match and match[2] == '1' and match[3]}
  renamed = {}
  for key, value in state.items():
    match = _TORCHVISION_LAYER.fullmatch(key)
    if match and match[1] in grouped:
      feature, group, norm, leaf = match.groups()
      last = 2 if feature in expanded else 1
      layer = 3 * int(group) + int(norm) if norm else 3 * last + int(group) - last
      key = f'{feature}.conv.{layer}.{leaf}'
    renamed[key] = value
  return renamed


def target(key: str, model: Any) -> Any:
  """Returns the destination of PyTorch's `key`; see `fcajax.weights.torch.from_torch`."""
  if key.endswith('num_batches_tracked'):
    return IGNORE
  match = _GATE.fullmatch(key)
  if match:
    return _gate_target(*match.groups())
  if hasattr(model, 'stage_sizes'):
    match = _STAGE_BLOCK.fullmatch(key)
    if match:
      stage, block, rest = match.groups()
      return names_resnet.block_target((f'stage{int(stage) + 1}', f'block{block}'), rest)
    return names_resnet.target(key, model)
  return _mobilenet_target(key, model)


def _gate_target(part: str, leaf: str) -> Target | None:
  if part == '.0':
    return dense_target(('gate', 'mix'), leaf)
  if part == '.1':
    return norm_target(('gate', 'norm'), leaf)
  name = {'weight': 'logits_kernel', 'bias': 'logits_bias'}.get(leaf)
  return Target(('params', 'gate', name), flat) if name else None


def _mobilenet_target(key: str, model: Any) -> Target | None:
  module, _, leaf = key.rpartition('.')
  if module in ('classifier', 'classifier.1'):
    return dense_target(('head',), leaf)
  for conv, norm, name in (('conv.0', 'conv.1', 'head'), ('conv_head', 'bn2', 'head'),
                           ('conv_stem', 'bn1', 'stem')):
    if module in (conv, norm):
      return _pair_target((), name, module == conv, leaf)
  match = _TIMM_BLOCK.fullmatch(module)
  if match:
    return _block_target(int(match[1]) + 1, int(match[2]), match[3], leaf)
  match = _FEATURE.fullmatch(module)
  if not match:
    return None
  block, rest = int(match[1]) - (model.stem == 'imagenet'), match[2]
  if block in (-1, len(_BLOCKS)) and rest in ('0', '1'):
    return _pair_target((), 'stem' if block == -1 else 'head', rest == '0', leaf)
  return _block_target(*_BLOCKS[block], rest, leaf) if 0 <= block < len(_BLOCKS) else None


def _block_target(stage: int, block: int, module: str, leaf: str) -> Target | None:
  layers = _EXPANDED if stage > 1 else _UNEXPANDED
  for name, spellings in layers.items():
    for conv, norm in spellings:
      if module in (conv, norm):
        return _pair_target((f'stage{stage}', f'block{block}'), name, module == conv, leaf)
  return None


def _pair_target(path: tuple[str, ...], name: str, is_conv: bool, leaf: str) -> Target | None:
  if is_conv:
    return conv_target((*path, f'{name}_conv'), leaf)
  return norm_target((*path, f'{name}_norm'), leaf)


def input_shape(model: Any, state: Mapping[str, np.ndarray]) -> tuple[int, ...]:
  """Returns the published input size with the model's own channels."""
  del state
  if model.stem == 'imagenet':
    return (1, 224, 224, 3)
  side = 56 if hasattr(model, 'stage_sizes') else 112
  return (1, side, side, len(coefficient_subset(model.coefficients)))


# A depthwise kernel [k, 1, 3, 3] counts coefficients in its outputs, a 1x1 kernel in its inputs.
_FIRST_KERNELS = {
    'model.0.0.conv1.weight': 1,
    'layer1.0.conv1.weight': 1,
    'features.0.conv.0.weight': 0,
}


def infer_overrides(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Infers `num_classes`, `gate`, and `coefficients` if their number is a square subset's."""
  state, overrides = rename(state), {}
  for name in ('fc.weight', 'classifier.weight', 'classifier.1.weight'):
    if name in state:
      overrides['num_classes'] = int(state[name].shape[0])
  if any(_GATE.fullmatch(key) for key in state):
    overrides['gate'] = True
  for name, axis in _FIRST_KERNELS.items():
    if name in state:
      channels = state[name].shape[axis]
      subset = '192' if channels == 192 else f'{channels}S'
      if subset in SUBSETS:
        overrides['coefficients'] = subset
  return overrides
