"""PyTorch names of ResNet, SE-ResNet, ECA-ResNet, ResNeXt (torchvision, timm) and FcaNet.

    conv1, bn1                       stem_conv, stem_norm
    layer1.0.conv1, .bn1             stage1/block0/conv1, norm1
    layer1.0.downsample.0, .1        stage1/block0/shortcut_conv, shortcut_norm
    layer1.0.att.fc.0, .fc.2         stage1/block0/attention/reduce, expand    (FcaNet)
    layer1.0.att.dct_layer           computed here, and compared; see `check`  (FcaNet)
    layer1.0.se.fc1, .fc2            the same                                  (timm, SE)
    layer1.0.se.conv                 stage1/block0/attention/conv              (timm, ECA)
    fc                               head
"""
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fcajax.errors import UserError
from fcajax.layers.attention import MultiSpectralAttention, resolve_attention
from fcajax.typing import NumpyArray, Shaped
from fcajax.weights.torch import dct_filters
from fcajax.weights.torch.rules import (
  IGNORE,
  Target,
  conv_target,
  dense_target,
  flat,
  norm_target,
)

_BLOCK = re.compile(r'layer(\d+)\.(\d+)\.(.+)')
_ATTENTION = re.compile(r'(?:att|attention|attn|se|se_module|eca)\.(.+)')
_REDUCE = ('fc.0', 'fc1')
_EXPAND = ('fc.2', 'fc2')


def target(key: str, model: Any) -> Any:
  """Returns the destination of PyTorch's `key`; see `fcajax.weights.torch.from_torch`."""
  if key.endswith('num_batches_tracked'):
    return IGNORE
  if key.endswith(dct_filters.SUFFIX) and not _learns_basis(model):
    return IGNORE
  match = _BLOCK.fullmatch(key)
  if match:
    stage, block, rest = match.groups()
    return block_target((f'stage{stage}', f'block{block}'), rest)
  module, _, leaf = key.rpartition('.')
  if module == 'conv1':
    return conv_target(('stem_conv',), leaf)
  if module == 'bn1':
    return norm_target(('stem_norm',), leaf)
  if module in ('fc', 'last_linear', 'head.fc'):
    return dense_target(('head',), leaf)
  return None


def block_target(path: tuple[str, ...], rest: str) -> Target | None:
  """Returns the target of the part of a key behind `layerK.J.`, for the block at `path`."""
  module, _, leaf = rest.rpartition('.')
  if re.fullmatch(r'conv\d', module):
    return conv_target((*path, module), leaf)
  if re.fullmatch(r'bn\d', module):
    return norm_target((*path, f'norm{module[2:]}'), leaf)
  if module == 'downsample.0':
    return conv_target((*path, 'shortcut_conv'), leaf)
  if module == 'downsample.1':
    return norm_target((*path, 'shortcut_norm'), leaf)
  match = _ATTENTION.fullmatch(module)
  return attention_target((*path, 'attention'), match.group(1), leaf) if match else None


def attention_target(path: tuple[str, ...], module: str, leaf: str) -> Target | None:
  """Returns the target of a squeeze-excite matrix, a learned basis, or the filter of ECA."""
  if module in _REDUCE:
    return dense_target((*path, 'reduce'), leaf)
  if module in _EXPAND:
    return dense_target((*path, 'expand'), leaf)
  if module == 'conv' and leaf == 'weight':
    return Target(('params', *path, 'conv', 'kernel'), flat)
  if module == 'dct_layer' and leaf == 'weight':
    return Target(('params', *path, 'basis'), _channels_last)
  return None


def _learns_basis(model: Any) -> bool:
  return bool((getattr(model, 'attention_options', None) or {}).get('learnable'))


def _channels_last(
    array: NumpyArray, shape: tuple[int, ...]) -> Shaped[np.ndarray, 'h w c'] | None:
  return array.transpose(1, 2, 0) if array.ndim == 3 else None


def check(state: Mapping[str, np.ndarray], model: Any) -> None:
  """Raises UserError if the DCT filters of `state` are not those that `model` computes."""
  filters = dct_filters.stored_filters(state)
  if not filters or _learns_basis(model):
    return
  factory = resolve_attention(
      getattr(model, 'attention', None), getattr(model, 'attention_options', None))
  layer = factory() if factory else None
  layers = dict.fromkeys(filters)
  for key in filters if isinstance(layer, MultiSpectralAttention) else ():
    match, size = _BLOCK.fullmatch(key), layer.dct_size
    if size is None and model.dct_sizes is not None and match:
      size = model.dct_sizes[int(match[1]) - 1]
    layers[key] = layer.clone(dct_size=size, allow_smaller=True)
  dct_filters.check_filters(filters, layers)


def input_shape(model: Any, state: Mapping[str, np.ndarray]) -> tuple[int, ...]:
  """Returns a shape that `model.init` takes: the channels of the first kernel, the usual size."""
  size = 32 if model.stem == 'cifar' else 224
  if model.stem == 'none':
    first = state.get('layer1.0.conv1.weight')
    if first is None:
      raise UserError("a network with stem='none' and no layer1.0.conv1.weight in the "
                      'checkpoint: give input_shape')
    return (1, 56, 56, first.shape[1])
  stem = state.get('conv1.weight')
  channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
  return (1, size, size, channels)


def infer_overrides(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Infers fields of the network from the shapes and filters of the state dict.

  Returns:
    `num_classes` from the head, biases and widths of squeeze-excite from its matrices, the
    `frequencies` from FcaNet's filters.
  """
  overrides = {}
  for name in ('fc.weight', 'last_linear.weight', 'head.fc.weight'):
    if name in state:
      overrides['num_classes'] = int(state[name].shape[0])
  reduce = [(key, value.shape) for key, value in state.items()
            if re.fullmatch(r'layer\d+\.\d+\.\w+\.(?:fc1|fc\.0)\.weight', key)]
  if reduce:
    overrides |= _excite_overrides({shape[1]: shape[0] for _, shape in reduce})
    if reduce[0][0].replace('.weight', '.bias') in state:
      overrides['use_bias'] = True
  frequencies = dct_filters.frequencies_of(dct_filters.stored_filters(state))
  if frequencies not in (None, dct_filters.DEFAULT):
    overrides['frequencies'] = frequencies
  return overrides


def _excite_overrides(widths: dict[int, int]) -> dict[str, int]:
  """Returns `reduction` and `divisor` from {channels: width between the two matrices}."""
  channels = max(widths)
  reduction = round(channels / widths[channels])
  overrides = {} if reduction == 16 else {'reduction': reduction}
  # timm rounds the width to multiples of 8, which shows where a block has few channels.
  if any(width != channels // reduction for channels, width in widths.items()):
    overrides['divisor'] = 8
  return overrides
