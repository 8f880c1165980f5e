"""PyTorch names of the FFC ResNets, of their layers alone, and of inpainting networks' FFC layers.

    conv1, bn1, fc                    stem_conv, stem_norm, head
    layer1.0.conv1                    stage1/block0/conv1
    layer1.0.downsample, .se_block    stage1/block0/shortcut, se

and, below such a layer or for a layer alone,

    ffc.convl2l, .convl2g, .convg2l   l2l, l2g, g2l
    ffc.convg2g.conv1.0, .conv1.1     g2g/conv1, g2g/norm1
    ffc.convg2g.fu.conv_layer, .bn    g2g/fourier_unit/conv, norm     (.lfu: local_fourier_unit)
    ffc.convg2g.conv2                 g2g/conv2
    bn_l, bn_g                        norm_local, norm_global
    conv1, conv_a2l, conv_a2g         squeeze, excite_local, excite_global     (squeeze-excite)
"""
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fcajax.errors import UserError
from fcajax.weights.torch.rules import IGNORE, Target, conv_target, dense_target, norm_target

Path = tuple[str, ...]

_LAYER = re.compile(r'layer(\d+)\.(\d+)\.(\w+)\.(.+)')
_FIRST = 'layer1.0.conv1.ffc.convl2{}.weight'


def target(key: str, model: Any) -> Any:
  """Returns the destination of PyTorch's `key`; see `fcajax.weights.torch.from_torch`."""
  if key.endswith('num_batches_tracked'):
    return IGNORE
  if not hasattr(model, 'stage_sizes'):
    return _LAYERS[_kind(model)]((), key)
  match = _LAYER.fullmatch(key)
  if match:
    stage, block, name, rest = match.groups()
    path = (f'stage{stage}', f'block{block}')
    if name == 'se_block':
      return _squeeze_excite((*path, 'se'), rest)
    return _ffc((*path, 'shortcut' if name == 'downsample' else name), rest)
  module, _, leaf = key.rpartition('.')
  if module == 'fc':
    return dense_target(('head',), leaf)
  if module == 'conv1':
    return conv_target(('stem_conv',), leaf)
  return norm_target(('stem_norm',), leaf) if module == 'bn1' else None


def _kind(model: Any) -> str:
  return next(cls.__name__ for cls in type(model).__mro__ if cls.__name__ in _LAYERS)


def _ffc(path: Path, rest: str) -> Target | None:
  """Returns the target inside a fast Fourier convolution, with or without norms around it."""
  rest = rest.removeprefix('ffc.')
  if rest.startswith('convg2g.'):
    return _spectral((*path, 'g2g'), rest.removeprefix('convg2g.'))
  module, _, leaf = rest.rpartition('.')
  if module in ('convl2l', 'convl2g', 'convg2l') and leaf == 'weight':
    return conv_target((*path, module.removeprefix('conv')), leaf)
  norms = {'bn_l': 'norm_local', 'bn_g': 'norm_global'}
  return norm_target((*path, norms[module]), leaf) if module in norms else None


def _spectral(path: Path, rest: str) -> Target | None:
  for prefix, name in (('fu.', 'fourier_unit'), ('lfu.', 'local_fourier_unit')):
    if rest.startswith(prefix):
      return _fourier_unit((*path, name), rest.removeprefix(prefix))
  module, _, leaf = rest.rpartition('.')
  if module == 'conv1.1':
    return norm_target((*path, 'norm1'), leaf)
  name = {'conv1.0': 'conv1', 'conv2': 'conv2'}.get(module)
  return conv_target((*path, name), leaf) if name else None


def _fourier_unit(path: Path, rest: str) -> Target | None:
  module, _, leaf = rest.rpartition('.')
  if module == 'conv_layer':
    return conv_target((*path, 'conv'), leaf)
  return norm_target((*path, 'norm'), leaf) if module == 'bn' else None


def _squeeze_excite(path: Path, rest: str) -> Target | None:
  module, _, leaf = rest.rpartition('.')
  name = {'conv1': 'squeeze', 'conv_a2l': 'excite_local', 'conv_a2g': 'excite_global'}.get(module)
  return dense_target((*path, name), leaf) if name else None


_LAYERS = {
    'FastFourierConv': _ffc,
    'SpectralTransform': _spectral,
    'FourierUnit': _fourier_unit,
    'FFCSqueezeExcite': _squeeze_excite,
}


def input_shape(model: Any, state: Mapping[str, np.ndarray]) -> tuple[int, ...]:
  """Returns the published input size with the channels of the first kernel."""
  if not hasattr(model, 'stage_sizes'):
    raise UserError(f'give input_shape for a {type(model).__name__} alone: [N, H, W, C], or a '
                    'pair of them (or None) where the layer takes (local, global)')
  stem = state.get(_FIRST.format('l') if model.stem == 'none' else 'conv1.weight')
  channels = 3 if stem is None else stem.shape[1]
  size = {'imagenet': 224, 'cifar': 32}.get(model.stem, 56)
  return (1, size, size, channels)


def infer_overrides(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Infers `num_classes`, `ratio`, `lfu` and `use_se` from the shapes of the state dict."""
  local, global_ = (state[key].shape[0] if key in state else 0
                    for key in (_FIRST.format('l'), _FIRST.format('g')))
  overrides = {
      'lfu': any('.lfu.' in key for key in state),
      'use_se': any('.se_block.' in key for key in state),
  }
  if local + global_:
    overrides['ratio'] = global_ / (local + global_)
  if 'fc.weight' in state:
    overrides['num_classes'] = int(state['fc.weight'].shape[0])
  return overrides
