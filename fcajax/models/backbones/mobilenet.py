"""MobileNetV2 on RGB pixels and on block-DCT coefficients.

Sources: Sandler et al., "MobileNetV2", CVPR 2018, table 2; Xu et al., "Learning in the Frequency
Domain", CVPR 2020, for the coefficient input.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.layers.conv import Conv
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.models.backbones.dct_input import DctInput
from fcajax.models.backbones.stages import (
  FeatureInfo,
  check_stem,
  describe_stages,
  global_pool,
  is_complete,
  select_features,
)
from fcajax.typing import AnyArray, Array, Float

# One row for each stage: expansion t, output channels c, blocks n, first stride s.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def round_channels(channels: float, unit: int = 8) -> int:
  """Returns the multiple of `unit` nearest to `channels`, but at least nine tenths of it."""
  rounded = max(unit, int(channels + unit / 2) // unit * unit)
  return rounded if rounded >= 0.9 * channels else rounded + unit


class InvertedResidual(nn.Module):
  """1x1 to `expansion * C` - depthwise 3x3 - 1x1 without activation, plus the input if it fits.

  With an expansion of 1 there is no first 1x1.
  """

  features: int
  strides: int
  expansion: int
  conv: Callable[..., Any]
  norm: NormFactory
  activation: Callable[..., Any]

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w out_c']:
    shortcut, channels = x, x.shape[-1]
    hidden = channels * self.expansion
    if self.expansion != 1:
      x = self.conv(hidden, 1, name='expand_conv')(x)
      x = self.activation(self.norm(name='expand_norm')(x, train=train))
    x = self.conv(hidden, 3, self.strides, groups=hidden, name='depthwise_conv')(x)
    x = self.activation(self.norm(name='depthwise_norm')(x, train=train))
    x = self.conv(self.features, 1, name='project_conv')(x)
    x = self.norm(name='project_norm')(x, train=train)
    return x + shortcut if self.strides == 1 and channels == self.features else x


class Stage(nn.Module):
  """`blocks` inverted residuals, of which the first strides."""

  blocks: int
  strides: int
  block: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c'], train: bool = False,
               ) -> Float[Array, 'n out_h out_w out_c']:
    for i in range(self.blocks):
      x = self.block(strides=self.strides if i == 0 else 1, name=f'block{i}')(x, train=train)
    return x


class MobileNetV2(nn.Module):
  """MobileNetV2: images to logits in float32.

  `capture_features=True` returns (result, {'stem', 'stage1' .. 'stage7', 'pre_logits'}), one stage
  for each row of the paper's table 2.

  Attributes:
    num_classes: number of logits; 0 leaves the head out and returns the pooled features.
    width: multiplies every channel count, rounded to multiples of 8.
    stem: 'imagenet' (3x3 convolution of stride 2) or 'none' (the input goes to stage 1).
    dropout: rate in front of the head, in training (rng stream 'dropout').
    dtype: compute dtype; parameters, statistics and logits are float32.
    norm: batch-norm factory, None for `BatchNorm`.
    axis_name: device axis of that `BatchNorm`.
    activation: ReLU6 as published.
    features_only: names ('stem', 'stage1', ...) or indices (0 is the stem, k is stage k) of the
      feature maps to return in place of logits, as a tuple; later stages and the head are left out.

  Raises:
    UserError: an unknown stem or feature map.
  """

  num_classes: int = 1000
  width: float = 1.0
  stem: Literal['imagenet', 'none'] = 'imagenet'
  dropout: float = 0.0
  dtype: DTypeLike | None = None
  norm: NormFactory | None = None
  axis_name: Any = None
  activation: Callable[..., Any] = nn.relu6
  features_only: Sequence[int | str] | None = None

  input_stride = 1  # image pixels per input position

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, 'n h w c'], train: bool = False, capture_features: bool = False,
  ) -> Any:
    check_stem(self.stem, ('imagenet', 'none'))
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = norm_factory(self.norm, self.dtype, self.axis_name)
    wanted = self.feature_info() if self.features_only is not None else None
    if self.dtype is not None:
      x = x.astype(self.dtype)
    if self.stem == 'imagenet':
      x = conv(round_channels(32 * self.width), 3, 2, name='stem_conv')(x)
      x = self.activation(norm(name='stem_norm')(x, train=train))
    features = {'stem': x}
    for i, (expansion, channels, blocks, strides) in enumerate(STAGES):
      if is_complete(features, wanted):
        break
      block = functools.partial(
          InvertedResidual, round_channels(channels * self.width), expansion=expansion, conv=conv,
          norm=norm, activation=self.activation)
      x = Stage(blocks, strides, block, name=f'stage{i + 1}')(x, train=train)
      features[f'stage{i + 1}'] = x
    if wanted is not None:
      result = tuple(features[info.name] for info in wanted)
    else:
      x = conv(round_channels(1280 * max(1.0, self.width)), 1, name='head_conv')(x)
      x = self.activation(norm(name='head_norm')(x, train=train))
      result = features['pre_logits'] = global_pool(x)
      if self.num_classes:
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(result)
        result = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.normal(0.01), name='head')(x)
    return (result, features) if capture_features else result

  def feature_info(self) -> tuple[FeatureInfo, ...]:
    """Returns the feature maps that `features_only` chooses, or all of them if it is None."""
    stem = (round_channels(32 * self.width), 2, 2) if self.stem == 'imagenet' else None
    return select_features(self.features_only, describe_stages(
        stem, [round_channels(channels * self.width) for _, channels, _, _ in STAGES],
        [strides for *_, strides in STAGES], self.input_stride))


class DctMobileNetV2(DctInput, MobileNetV2):
  """MobileNetV2 without its first convolution: coefficients go straight into stage 1.

  The published input is 112 x 112 blocks, an image of 896 x 896. Stage 1, which has no expansion,
  takes k channels. Fields are those of `MobileNetV2` and `DctInput`.
  """

  stem: Literal['imagenet', 'none'] = 'none'


VARIANTS = {
    'mobilenet_v2': MobileNetV2,
    'dct_mobilenet_v2': DctMobileNetV2,
}
VARIANTS = {name: functools.partial(network) for name, network in VARIANTS.items()}
