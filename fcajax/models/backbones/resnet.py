"""ResNet v1.5 with any channel attention: ResNet, SE-ResNet, ECA-ResNet, FcaNet and ResNeXt."""
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.layers.attention import attention_fields, resolve_attention
from fcajax.layers.conv import Conv
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.models.backbones.stages import (
  FeatureInfo,
  Stem,
  apply_stem,
  check_stages,
  classify,
  global_pool,
  is_complete,
  plan_strides,
  residual_feature_info,
  select_block,
)
from fcajax.typing import AnyArray, Array, Float


class BasicBlock(nn.Module):
  """conv3x3 - conv3x3 - attention, added to the shortcut.

  `dilation` is a pair: of the convolution that may stride, and of the layers behind it.
  """
  width: int
  strides: int
  dilation: tuple[int, int]
  conv: Callable[..., Any]
  norm: NormFactory
  activation: Callable[..., Any]
  attention: Callable[..., Any] | None
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 1

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w out_c']:
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
  conv: Callable[..., Any]
  norm: NormFactory
  activation: Callable[..., Any]
  attention: Callable[..., Any] | None
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 4

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w out_c']:
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
  block: Callable[..., nn.Module]
  strides: int
  first_dilation: int
  dilation: int

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w out_c']:
    for i in range(self.blocks):
      x = self.block(strides=self.strides if i == 0 else 1,
                     dilation=(self.first_dilation if i == 0 else self.dilation, self.dilation),
                     name=f'block{i}')(x, train=train)
    return x


BLOCKS = {'basic': BasicBlock, 'bottleneck': Bottleneck}


class ResNet(nn.Module):
  """ResNet v1.5: images to logits in float32.

  Attributes:
    stage_sizes: blocks of each stage.
    block: 'basic' or 'bottleneck'.
    num_classes: number of logits; 0 leaves the head out and returns the pooled features.
    width: channels of the stem and base width of stage 1; doubled at every stage.
    stem: 'imagenet' (7x7 stride 2, then 3x3 max pooling stride 2), 'cifar' (3x3), or 'none':
      the input goes straight to stage 1, as DCT coefficients do.
    stage_strides: stride of the first block of each stage.
    output_stride: input positions per output position, kept from growing further by dilation in
      place of stride (parameters unchanged); None leaves the strides alone.
    features_only: names ('stem', 'stage1', ...) or indices (0 is the stem, k is stage k) of the
      feature maps to return in place of logits, as a tuple; later stages and the head are left out.
      `feature_info()` describes them.
    attention: None, 'se', 'eca', 'fca', 'cbam', 'gc', or a module class, partial or callable that
      is called `attention(name=...)`, the result called `(x, train=train)`; applied after the last
      norm of every block, before the addition.
    attention_options: fields of that attention, such as `frequencies`. Its fields `dtype` and
      `norm`, where it has them and they are left open, get this network's.
    dct_sizes: `dct_size` of each stage, for an attention that has one; None is the input's size.
    groups, base_width: 32 and 4 make ResNeXt 32x4d.
    zero_init_last: start the scale of each block's last norm at 0, so that blocks start as the
      identity.
    dtype: compute dtype; parameters, statistics and logits stay float32.
    norm: a factory called `norm(name=..., [scale_init=...])`, the result called
      `(x, train=train)`; None is `BatchNorm`.
    axis_name: device axis over which `BatchNorm` takes its statistics.
    activation: applied after every norm but the last, and after the addition.

  With `capture_features=True` returns `(result, features)`: 'stem' (after the activation, before
  any pooling), 'stage1', ... and 'pre_logits' `[N, C]`.

  Raises:
    UserError: an unknown block, stem, attention or feature map, an `output_stride` out of reach, or
      a field without an entry for each stage.

  Sources: He et al., "Deep Residual Learning", 2015; Xie et al., "Aggregated Residual
  Transformations", 2017; Qin et al., "FcaNet", 2021.
  """
  stage_sizes: Sequence[int]
  block: Literal['basic', 'bottleneck'] = 'bottleneck'
  num_classes: int = 1000
  width: int = 64
  stem: Stem = 'imagenet'
  stage_strides: Sequence[int] = (1, 2, 2, 2)
  output_stride: int | None = None
  attention: Any = None
  attention_options: Mapping[str, Any] | None = None
  dct_sizes: Sequence[Any] | None = None
  groups: int = 1
  base_width: int = 64
  zero_init_last: bool = False
  dtype: DTypeLike | None = None
  norm: NormFactory | None = None
  axis_name: Any = None
  activation: Callable[..., Any] = nn.relu
  features_only: Sequence[int | str] | None = None

  input_stride = 1  # image pixels per input position

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, 'n h w c'], train: bool = False, capture_features: bool = False,
  ) -> Any:
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = norm_factory(self.norm, self.dtype, self.axis_name)
    check_stages(self.stage_sizes, stage_strides=self.stage_strides, dct_sizes=self.dct_sizes)
    strides, dilations = plan_strides(self.stem, self.stage_strides[:len(self.stage_sizes)],
                                      self.output_stride)
    block_class = select_block(BLOCKS, self.block, self.groups, self.base_width)
    wanted = self.feature_info() if self.features_only is not None else None
    if self.dtype is not None:
      x = x.astype(self.dtype)
    features = {}
    features['stem'], x = apply_stem(self.stem, self.width, conv, norm, self.activation, x, train)
    for i, blocks in enumerate(self.stage_sizes):
      if is_complete(features, wanted):
        break
      block = functools.partial(
          block_class, width=self.width * 2**i, conv=conv, norm=norm,
          activation=self.activation, attention=self._attention(i, norm),
          zero_init_last=self.zero_init_last, groups=self.groups, base_width=self.base_width)
      x = Stage(blocks, block, strides[i], *dilations[i], name=f'stage{i + 1}')(x, train=train)
      features[f'stage{i + 1}'] = x
    if wanted is not None:
      result = tuple(features[info.name] for info in wanted)
    else:
      features['pre_logits'] = global_pool(x)
      result = classify(features['pre_logits'], self.num_classes)
    return (result, features) if capture_features else result

  def feature_info(self) -> tuple[FeatureInfo, ...]:
    """Returns the feature maps that `features_only` chooses, or all of them if it is None."""
    block = select_block(BLOCKS, self.block, self.groups, self.base_width)
    return residual_feature_info(self, block.expansion)

  def _attention(self, stage, norm):
    """The factory of stage `stage`'s attention, with its DCT size and the network's norm."""
    if self.attention is None or self.attention == 'none':
      return None
    options = dict(self.attention_options or {})
    preset = getattr(self.attention, 'keywords', {})
    shared = {'norm': norm, 'dtype': self.dtype}
    if self.dct_sizes is not None:
      shared['dct_size'] = self.dct_sizes[stage]
    for option in shared.keys() & attention_fields(self.attention) - preset.keys():
      options.setdefault(option, shared[option])
    return resolve_attention(self.attention, options)


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
