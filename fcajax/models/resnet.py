"""ResNet v1.5 with any channel attention: ResNet, SE-ResNet, ECA-ResNet, FcaNet and ResNeXt."""
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv
from fcajax.layers.max_pool import max_pool
from fcajax.layers.norm import BatchNorm
from fcajax.models.options import attention_fields

# U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), as PyTorch draws a linear layer.
head_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class BasicBlock(nn.Module):
  """conv3x3 - conv3x3 - attention, added to the shortcut: `[N, H, W, C] -> [N, H/s, W/s, width]`.

  `dilation` is a pair: of the convolution that may stride, and of what follows it.
  """
  width: int
  strides: int
  dilation: tuple[int, int]
  conv: Callable
  norm: Callable
  activation: Callable
  attention: Callable | None
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 1

  @nn.compact
  def __call__(self, x, train=False):
    y = self.conv(self.width, 3, self.strides, dilation=self.dilation[0], name='conv1')(x)
    y = self.activation(self.norm(name='norm1')(y, train=train))
    y = self.conv(self.width, 3, dilation=self.dilation[1], name='conv2')(y)
    y = self.norm(name='norm2', **_last_scale(self.zero_init_last))(y, train=train)
    return _add_shortcut(self, x, y, train)


class Bottleneck(nn.Module):
  """conv1x1 - conv3x3 - conv1x1 - attention, added to the shortcut; 4 `width` channels come out.

  The stride sits on the 3x3 (v1.5). With `groups` this is ResNeXt's block.
  """
  width: int
  strides: int
  dilation: tuple[int, int]
  conv: Callable
  norm: Callable
  activation: Callable
  attention: Callable | None
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 4

  @nn.compact
  def __call__(self, x, train=False):
    inner = self.width * self.base_width // 64 * self.groups
    y = self.conv(inner, 1, name='conv1')(x)
    y = self.activation(self.norm(name='norm1')(y, train=train))
    y = self.conv(inner, 3, self.strides, dilation=self.dilation[0], groups=self.groups,
                  name='conv2')(y)
    y = self.activation(self.norm(name='norm2')(y, train=train))
    y = self.conv(self.width * self.expansion, 1, name='conv3')(y)
    y = self.norm(name='norm3', **_last_scale(self.zero_init_last))(y, train=train)
    return _add_shortcut(self, x, y, train)


def _last_scale(zero):
  return {'scale_init': nn.initializers.zeros_init()} if zero else {}


def _add_shortcut(block, x, y, train):
  """Attention on `y`, then the identity or a projection of `x` added, then the activation."""
  if block.attention is not None:
    y = block.attention(name='attention')(y, train=train)
  if x.shape[-1] != y.shape[-1] or block.strides != 1:
    x = block.conv(y.shape[-1], 1, block.strides, name='shortcut_conv')(x)
    x = block.norm(name='shortcut_norm')(x, train=train)
  return block.activation(x + y)


class Stage(nn.Module):
  """`blocks` residual blocks, of which the first one strides (or dilates instead)."""
  blocks: int
  block: Callable
  strides: int
  first_dilation: int
  dilation: int

  @nn.compact
  def __call__(self, x, train=False):
    for i in range(self.blocks):
      x = self.block(strides=self.strides if i == 0 else 1,
                     dilation=(self.first_dilation if i == 0 else self.dilation, self.dilation),
                     name=f'block{i}')(x, train=train)
    return x


BLOCKS = {'basic': BasicBlock, 'bottleneck': Bottleneck}


class ResNet(nn.Module):
  """ResNet v1.5: images `[N, H, W, C]` -> logits `[N, num_classes]` in float32.

  Args:
    stage_sizes: blocks of each stage.
    block: 'basic' or 'bottleneck'.
    num_classes: width of the logits.
    width: channels of the stem and base width of stage 1; doubled at every stage.
    stem: 'imagenet' (7x7 stride 2, then 3x3 max pooling stride 2), 'cifar' (3x3), or 'none':
      the input goes straight to stage 1, as DCT coefficients do.
    stage_strides: stride of the first block of each stage.
    output_stride: input pixels per output position, kept from growing further by dilation in
      place of stride (parameters unchanged); None leaves the strides alone.
    attention: None, 'se', 'eca', 'fca', 'cbam', 'gc', or a module class, partial or callable that
      is called `attention(name=...)`, the result called `(x, train=train)`; applied after the last
      norm of every block, before the addition.
    attention_options: fields of that attention, such as `frequencies`. Its fields `dtype` and
      `norm`, where it has them and they are left open, get this network's.
    dct_sizes: `dct_size` of each stage for attention that has one; None, the input's own size.
    groups, base_width: 32 and 4 make ResNeXt 32x4d.
    zero_init_last: start the scale of each block's last norm at 0, so that blocks start as the
      identity.
    dtype: compute dtype; parameters, statistics and logits stay float32.
    norm: a factory called `norm(name=..., [scale_init=...])`, the result called
      `(x, train=train)`; None is `BatchNorm`.
    axis_name: device axis over which `BatchNorm` takes its statistics.
    activation: applied after every norm but the last, and after the addition.

  With `capture_features=True` returns `(logits, features)`: 'stem' (after the activation, before
  any pooling), 'stage1', ... and 'pre_logits' `[N, C]`.

  Sources: He et al., "Deep Residual Learning", 2015; Xie et al., "Aggregated Residual
  Transformations", 2017; Qin et al., "FcaNet", 2021.
  """
  stage_sizes: tuple[int, ...]
  block: str = 'bottleneck'
  num_classes: int = 1000
  width: int = 64
  stem: str = 'imagenet'
  stage_strides: tuple[int, ...] = (1, 2, 2, 2)
  output_stride: int | None = None
  attention: Any = None
  attention_options: Mapping | None = None
  dct_sizes: tuple | None = None
  groups: int = 1
  base_width: int = 64
  zero_init_last: bool = False
  dtype: Any = None
  norm: Callable | None = None
  axis_name: Any = None
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, x, train=False, capture_features=False):
    features = {}
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = self.norm or functools.partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
    check_stages(self.stage_sizes, stage_strides=self.stage_strides, dct_sizes=self.dct_sizes)
    strides, dilations = plan_strides(self.stem, self.stage_strides[:len(self.stage_sizes)],
                                      self.output_stride)
    if self.dtype is not None:
      x = x.astype(self.dtype)
    features['stem'], x = apply_stem(self.stem, self.width, conv, norm, self.activation, x, train)
    block_class = select_block(BLOCKS, self.block, self.groups, self.base_width)
    for i, blocks in enumerate(self.stage_sizes):
      block = functools.partial(
          block_class, width=self.width * 2**i, conv=conv, norm=norm,
          activation=self.activation, attention=self._attention(i, norm),
          zero_init_last=self.zero_init_last, groups=self.groups, base_width=self.base_width)
      x = Stage(blocks, block, strides[i], *dilations[i], name=f'stage{i + 1}')(x, train=train)
      features[f'stage{i + 1}'] = x
    x = features['pre_logits'] = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    logits = nn.Dense(self.num_classes, kernel_init=head_init, name='head')(x)
    return (logits, features) if capture_features else logits

  def _attention(self, stage, norm):
    """The factory of stage `stage`'s attention, with its DCT size and the network's norm."""
    if self.attention is None or self.attention == 'none':
      return None
    from fcajax.layers.attention import resolve_attention
    options = dict(self.attention_options or {})
    preset = getattr(self.attention, 'keywords', {})
    shared = {'norm': norm, 'dtype': self.dtype}
    if self.dct_sizes is not None:
      shared['dct_size'] = self.dct_sizes[stage]
    for option in shared.keys() & attention_fields(self.attention) - preset.keys():
      options.setdefault(option, shared[option])
    return resolve_attention(self.attention, options)


def apply_stem(stem, width, conv, norm, activation, x, train):
  """The layers ahead of stage 1, for a network to call: (the features 'stem', stage 1's input).

  Args:
    stem: 'imagenet' (7x7 stride 2, then max pooling stride 2), 'cifar' (3x3) or 'none'.
    width: channels out.
    conv, norm, activation: the network's own.
    x: `[N, H, W, C]`.
    train: whether to use the batch's statistics.
  """
  if stem == 'none':
    return x, x
  if stem not in ('imagenet', 'cifar'):
    raise ValueError(f"stem={stem!r} is not one of 'imagenet', 'cifar', 'none'")
  x = conv(width, *((7, 2) if stem == 'imagenet' else (3, 1)), name='stem_conv')(x)
  x = activation(norm(name='stem_norm')(x, train=train))
  return x, max_pool(x) if stem == 'imagenet' else x


def check_stages(stage_sizes, **options):
  """Raises ValueError unless every option that is not None has an entry for each stage."""
  for name, values in {'stage_sizes': stage_sizes, **options}.items():
    if values is not None and not (
        isinstance(values, tuple | list) and len(values) >= max(1, len(stage_sizes))):
      raise ValueError(f'{name}={values!r} needs one entry for each stage, and stage_sizes='
                       f'{stage_sizes!r} gives the blocks of each stage')


def select_block(blocks, name, groups, base_width):
  """The class `blocks[name]`, if it can be grouped as asked."""
  if name not in blocks:
    raise ValueError(f'block={name!r} is not one of {", ".join(map(repr, blocks))}')
  if name == 'basic' and (groups, base_width) != (1, 64):
    raise ValueError("groups and base_width need block='bottleneck'")
  return blocks[name]


def plan_strides(stem, stage_strides, output_stride):
  """Stage strides and (first, rest) dilations under `output_stride`.

  A stage that would stride beyond `output_stride` keeps stride 1 and dilates by the stride it
  gave up: its strided convolution still at the dilation reached so far, everything behind it at
  the new one. The result then holds the strided network's values at every s-th position.
  """
  reached = {'imagenet': 4}.get(stem, 1)
  total = reached * math.prod(stage_strides)
  if output_stride is not None and not (
      reached <= output_stride <= total and total % output_stride == 0):
    allowed = [s for s in range(reached, total + 1) if total % s == 0 and s % reached == 0]
    raise ValueError(f'output_stride={output_stride} is not one of {allowed}, what this stem and '
                     f'stage_strides={tuple(stage_strides)} can reach')
  strides, dilations, dilation = [], [], 1
  for stride in stage_strides:
    first = dilation
    if output_stride is not None and reached * stride > output_stride:
      dilation, stride = dilation * stride, 1
    reached *= stride
    strides.append(stride)
    dilations.append((first, dilation))
  return strides, dilations


def _variants():
  imagenet = {
      '18': {'stage_sizes': (2, 2, 2, 2), 'block': 'basic'},
      '34': {'stage_sizes': (3, 4, 6, 3), 'block': 'basic'},
      '50': {'stage_sizes': (3, 4, 6, 3)},
      '101': {'stage_sizes': (3, 4, 23, 3)},
      '152': {'stage_sizes': (3, 8, 36, 3)},
  }
  small = {
      '20': {'stage_sizes': (3, 3, 3), 'block': 'basic', 'stem': 'cifar', 'width': 16},
      '56': {'stage_sizes': (9, 9, 9), 'block': 'basic', 'stem': 'cifar', 'width': 16},
  }
  resnext = {'stage_sizes': (3, 4, 6, 3), 'groups': 32, 'base_width': 4}
  variants = {}
  for prefix, attention in (('', None), ('se_', 'se'), ('eca_', 'eca'), ('fca_', 'fca')):
    sizes = {'dct_sizes': (56, 28, 14, 7)} if attention == 'fca' else {}
    for depth, fields in imagenet.items():
      variants[f'{prefix}resnet{depth}'] = dict(fields, attention=attention, **sizes)
    for depth, fields in small.items():
      variants[f'{prefix}resnet{depth}'] = dict(fields, attention=attention)
    variants[f'{prefix}resnext50_32x4d'] = dict(resnext, attention=attention, **sizes)
  return {name: functools.partial(ResNet, **fields) for name, fields in variants.items()}


VARIANTS = _variants()
