"""ResNet and ResNeXt of fast Fourier convolutions."""
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.conv import Conv
from fcajax.layers.fourier import FFCNormAct, FFCSqueezeExcite, join
from fcajax.layers.fourier.ffc import Halves, OutputHalves
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
from fcajax.ops.fourier import Implementation
from fcajax.typing import AnyArray, Float


def ffc_layer(
    features: int, kernel_size: int, ratio_in: float, ratio_out: float, strides: int = 1, *,
    local_to_global: bool = True, global_to_local: bool = True, **fields: Any) -> FFCNormAct:
  """Builds a `FFCNormAct` whose crossing paths can be left out if it has both halves throughout.

  Elsewhere they stay, since without them the global half would have no source, or no reader.
  """
  inside = 0 < ratio_in and 0 < ratio_out
  return FFCNormAct(features, kernel_size, ratio_in, ratio_out, strides,
                    local_to_global=local_to_global or not inside,
                    global_to_local=global_to_local or not inside, **fields)


class BasicBlock(nn.Module):
  """FFC 3x3 - FFC 3x3, added to the shortcut; (local, global) pairs in and out.

  `ffc` is a partial of `ffc_layer` without the arguments that differ from layer to layer. `project`
  puts an FFC 1x1 on the shortcut. `dilation` is a pair: of the convolution that may stride, and of
  the layers behind it.
  """
  width: int
  ratio_in: float
  ratio_out: float
  strides: int
  dilation: tuple[int, int]
  project: bool
  ffc: Callable[..., FFCNormAct]
  activation: Callable[..., Any]
  use_se: bool
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 1

  @nn.compact
  def __call__(self, x: Halves, train: bool = False) -> OutputHalves:
    y = self.ffc(self.width, 3, self.ratio_in, self.ratio_out, self.strides,
                 dilation=self.dilation[0], name='conv1')(x, train=train)
    y = self.ffc(self.width, 3, self.ratio_out, self.ratio_out, dilation=self.dilation[1],
                 **_last(self.zero_init_last), name='conv2')(y, train=train)
    return _add_shortcut(self, x, y, train)


class Bottleneck(nn.Module):
  """FFC 1x1 - FFC 3x3 - FFC 1x1, added to the shortcut; fields as for `BasicBlock`.

  The stride sits on the 3x3; 4 `width` channels come out. With `groups` this is ResNeXt's block.
  """
  width: int
  ratio_in: float
  ratio_out: float
  strides: int
  dilation: tuple[int, int]
  project: bool
  ffc: Callable[..., FFCNormAct]
  activation: Callable[..., Any]
  use_se: bool
  zero_init_last: bool
  groups: int = 1
  base_width: int = 64

  expansion = 4

  @nn.compact
  def __call__(self, x: Halves, train: bool = False) -> OutputHalves:
    inner = self.width * self.base_width // 64 * self.groups
    y = self.ffc(inner, 1, self.ratio_in, self.ratio_out, name='conv1')(x, train=train)
    y = self.ffc(inner, 3, self.ratio_out, self.ratio_out, self.strides,
                 dilation=self.dilation[0], groups=self.groups, name='conv2')(y, train=train)
    y = self.ffc(self.width * self.expansion, 1, self.ratio_out, self.ratio_out,
                 **_last(self.zero_init_last), name='conv3')(y, train=train)
    return _add_shortcut(self, x, y, train)


def _last(zero_init):
  """The fields of the last layer before the addition."""
  return {'output_activation': None,
          'norm_scale_init': nn.initializers.zeros_init() if zero_init else None}


def _add_shortcut(block, x, y, train):
  """Squeeze-excite on `y`, then the identity or a projection of `x` added, then the activation."""
  if block.use_se:
    y = FFCSqueezeExcite(dtype=block.ffc.keywords['dtype'], name='se')(y, train=train)
  if block.project:
    x = block.ffc(block.width * block.expansion, 1, block.ratio_in, block.ratio_out, block.strides,
                  output_activation=None, name='shortcut')(x, train=train)
  return tuple(None if b is None else block.activation(a + b) for a, b in zip(x, y))


class Stage(nn.Module):
  """`blocks` residual blocks; the first one strides, projects and changes the ratio."""
  blocks: int
  block: Callable[..., nn.Module]
  ratio_in: float
  ratio_out: float
  strides: int
  first_dilation: int
  dilation: int

  @nn.compact
  def __call__(self, x: Halves, train: bool = False) -> OutputHalves:
    for i in range(self.blocks):
      first = i == 0
      x = self.block(ratio_in=self.ratio_in if first else self.ratio_out,
                     ratio_out=self.ratio_out, strides=self.strides if first else 1,
                     dilation=(self.first_dilation if first else self.dilation, self.dilation),
                     project=first, name=f'block{i}')(x, train=train)
    return x


BLOCKS = {'basic': BasicBlock, 'bottleneck': Bottleneck}


class FFCResNet(nn.Module):
  """ResNet v1.5 of fast Fourier convolutions: images to logits in float32.

  Every convolution of the blocks, the 1x1 ones and the shortcut included, is a `FFCNormAct`; the
  stem is a plain convolution. Stage 1 starts from local channels alone and the last stage returns
  to them. The first block of every stage projects its shortcut.

  Attributes:
    stage_sizes: blocks of each stage.
    block: 'basic' or 'bottleneck'.
    num_classes: number of logits; 0 leaves the head out and returns the pooled features.
    width: channels of the stem and base width of stage 1; doubled at every stage.
    stem: 'imagenet' (7x7 stride 2, then 3x3 max pooling stride 2), 'cifar' (3x3) or 'none'.
    stage_strides: stride of the first block of each stage.
    output_stride: as for `ResNet`: dilation in place of stride beyond it. The dilated local path
      repeats the strided one at a finer grid; the spectral path sees the larger map.
    ratio: share of global channels in [0, 1]: one number for every stage but the last, which has
      0, or one number for each stage (a last one above 0 gives both halves to the head).
    lfu: local Fourier units.
    use_se: squeeze-excite, reduction 16, after the last layer of every block.
    local_to_global, global_to_local: False leaves this path out of every layer that has both
      halves on both sides. Where the global half begins or ends, the path stays.
    groups, base_width: 32 and 4 make ResNeXt 32x4d.
    zero_init_last: start the scales of each block's last norms at 0.
    fourier_implementation: see `fcajax.ops.fourier`.
    dtype: compute dtype; parameters, statistics and logits stay float32.
    norm: a factory called `norm(name=..., [scale_init=...])`, the result called
      `(x, train=train)`; None is `BatchNorm`.
    axis_name: device axis over which `BatchNorm` takes its statistics.
    activation: applied after every norm but the last, after the addition and in the spectrum.
    features_only: as for `ResNet`: feature maps to return in place of logits, with both halves
      joined, local channels first.

  With `capture_features=True` returns `(result, features)`: 'stem', 'stage1', ..., local channels
  first, and 'pre_logits' `[N, C]`.

  Raises:
    UserError: a ratio outside [0, 1] or not one for each stage; unknown block, stem or feature map;
      an `output_stride` out of reach; widths that `groups` does not divide.

  Source: Chi et al., "Fast Fourier Convolution", 2020.
  """
  stage_sizes: Sequence[int]
  block: Literal['basic', 'bottleneck'] = 'bottleneck'
  num_classes: int = 1000
  width: int = 64
  stem: Stem = 'imagenet'
  stage_strides: Sequence[int] = (1, 2, 2, 2)
  output_stride: int | None = None
  ratio: float | Sequence[float] = 0.25
  lfu: bool = True
  use_se: bool = False
  local_to_global: bool = True
  global_to_local: bool = True
  groups: int = 1
  base_width: int = 64
  zero_init_last: bool = False
  fourier_implementation: Implementation = 'auto'
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
    check_stages(self.stage_sizes, stage_strides=self.stage_strides)
    strides, dilations = plan_strides(self.stem, self.stage_strides[:len(self.stage_sizes)],
                                      self.output_stride)
    ratios = (0, *self._ratios())
    wanted = self.feature_info() if self.features_only is not None else None
    if self.dtype is not None:
      x = x.astype(self.dtype)
    features = {}
    features['stem'], x = apply_stem(
        self.stem, self.width, functools.partial(Conv, dtype=self.dtype),
        norm_factory(self.norm, self.dtype, self.axis_name), self.activation, x, train)
    block = self._block()
    x = x, None
    for i, blocks in enumerate(self.stage_sizes):
      if is_complete(features, wanted):
        break
      x = Stage(blocks, functools.partial(block, width=self.width * 2**i), ratios[i],
                ratios[i + 1], strides[i], *dilations[i], name=f'stage{i + 1}')(x, train=train)
      features[f'stage{i + 1}'] = join(x)
    if wanted is not None:
      result = tuple(features[info.name] for info in wanted)
    else:
      features['pre_logits'] = global_pool(join(x))
      result = classify(features['pre_logits'], self.num_classes)
    return (result, features) if capture_features else result

  def feature_info(self) -> tuple[FeatureInfo, ...]:
    """Returns the feature maps that `features_only` chooses, or all of them if it is None."""
    block = select_block(BLOCKS, self.block, self.groups, self.base_width)
    return residual_feature_info(self, block.expansion)

  def _block(self):
    """The factory of a residual block; the stage adds what differs from block to block."""
    ffc = functools.partial(
        ffc_layer, local_to_global=self.local_to_global, global_to_local=self.global_to_local,
        lfu=self.lfu, norm=self.norm, activation=self.activation,
        output_activation=self.activation, fourier_implementation=self.fourier_implementation,
        dtype=self.dtype, axis_name=self.axis_name)
    return functools.partial(
        select_block(BLOCKS, self.block, self.groups, self.base_width), ffc=ffc,
        activation=self.activation, use_se=self.use_se, zero_init_last=self.zero_init_last,
        groups=self.groups, base_width=self.base_width)

  def _ratios(self):
    """The ratio after each stage."""
    stages = len(self.stage_sizes)
    ratios = self.ratio
    if not isinstance(ratios, tuple | list):
      ratios = (ratios,) * (stages - 1) + (0,)
    if len(ratios) != stages or not all(0 <= ratio <= 1 for ratio in ratios):
      raise UserError(f'ratio={self.ratio} must be one number in [0, 1] or {stages} of them, '
                       'one for each stage')
    return ratios


VARIANTS = {
    'ffc_resnet18': functools.partial(FFCResNet, stage_sizes=(2, 2, 2, 2), block='basic'),
    # For 32 x 32 images; half of so few channels, so that a quarter of them is a whole number.
    'ffc_resnet20': functools.partial(
        FFCResNet, stage_sizes=(3, 3, 3), block='basic', stem='cifar', width=16, ratio=0.5),
    'ffc_resnet34': functools.partial(FFCResNet, stage_sizes=(3, 4, 6, 3), block='basic'),
    'ffc_resnet50': functools.partial(FFCResNet, stage_sizes=(3, 4, 6, 3)),
    'ffc_resnet101': functools.partial(FFCResNet, stage_sizes=(3, 4, 23, 3)),
    'ffc_resnet152': functools.partial(FFCResNet, stage_sizes=(3, 8, 36, 3)),
    'ffc_resnext50_32x4d': functools.partial(
        FFCResNet, stage_sizes=(3, 4, 6, 3), groups=32, base_width=4),
    'ffc_resnext101_32x8d': functools.partial(
        FFCResNet, stage_sizes=(3, 4, 23, 3), groups=32, base_width=8),
}
