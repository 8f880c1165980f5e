"""MobileNetV2 on RGB pixels and on block-DCT coefficients.

Sources: Sandler et al., "MobileNetV2", CVPR 2018, table 2; Xu et al., "Learning in the Frequency
Domain", CVPR 2020, for the coefficient input.
"""
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv
from fcajax.layers.norm import BatchNorm
from fcajax.models.dct_input import DctInput

# Expansion t, output channels c, blocks n, first stride s: one row a stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def round_channels(channels, unit=8):
  """The nearest multiple of `unit`, but never below nine tenths of `channels`."""
  rounded = max(unit, int(channels + unit / 2) // unit * unit)
  return rounded if rounded >= 0.9 * channels else rounded + unit


class InvertedResidual(nn.Module):
  """1x1 to `expansion * C` - depthwise 3x3 - 1x1 without activation, plus the input if it fits.

  `[N, H, W, C]` to `[N, H/strides, W/strides, features]`; an expansion of 1 has no first 1x1.
  """

  features: int
  strides: int
  expansion: int
  conv: Callable
  norm: Callable
  activation: Callable

  @nn.compact
  def __call__(self, x, train=False):
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
  block: Callable

  @nn.compact
  def __call__(self, x, train=False):
    for i in range(self.blocks):
      x = self.block(strides=self.strides if i == 0 else 1, name=f'block{i}')(x, train=train)
    return x


class MobileNetV2(nn.Module):
  """MobileNetV2: images `[N, H, W, 3]` to logits `[N, num_classes]`.

  `capture_features=True` returns (logits, {'stem', 'stage1' .. 'stage7', 'pre_logits'}), one stage
  a row of the paper's table 2.

  Attributes:
    num_classes: width of the logits.
    width: multiplies every channel count, rounded to multiples of 8.
    stem: 'imagenet' (3x3 convolution of stride 2) or 'none' (the input goes to stage 1).
    dropout: rate in front of the head, in training (rng stream 'dropout').
    dtype: compute dtype; parameters, statistics and logits are float32.
    norm: batch-norm factory, None for `BatchNorm`.
    axis_name: device axis of that `BatchNorm`.
    activation: ReLU6 as published.
  """

  num_classes: int = 1000
  width: float = 1.0
  stem: str = 'imagenet'
  dropout: float = 0.0
  dtype: Any = None
  norm: Callable | None = None
  axis_name: Any = None
  activation: Callable = nn.relu6

  @nn.compact
  def __call__(self, x, train=False, capture_features=False):
    if self.stem not in ('imagenet', 'none'):
      raise ValueError(f"stem={self.stem!r} is not one of 'imagenet', 'none'")
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = self.norm or functools.partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
    if self.dtype is not None:
      x = x.astype(self.dtype)
    if self.stem == 'imagenet':
      x = conv(round_channels(32 * self.width), 3, 2, name='stem_conv')(x)
      x = self.activation(norm(name='stem_norm')(x, train=train))
    features = {'stem': x}
    for i, (expansion, channels, blocks, strides) in enumerate(STAGES):
      block = functools.partial(
          InvertedResidual, round_channels(channels * self.width), expansion=expansion, conv=conv,
          norm=norm, activation=self.activation)
      x = Stage(blocks, strides, block, name=f'stage{i + 1}')(x, train=train)
      features[f'stage{i + 1}'] = x
    x = conv(round_channels(1280 * max(1.0, self.width)), 1, name='head_conv')(x)
    x = self.activation(norm(name='head_norm')(x, train=train))
    x = features['pre_logits'] = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
    logits = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name='head')(x)
    return (logits, features) if capture_features else logits


class DctMobileNetV2(DctInput, MobileNetV2):
  """MobileNetV2 without its first convolution: coefficients `[N, H/8, W/8, k]` go into stage 1.

  The published input is 112 x 112 blocks, an image of 896 x 896. Stage 1, which has no expansion,
  takes k channels. Fields are those of `MobileNetV2` and `DctInput`.
  """

  stem: str = 'none'


VARIANTS = {
    'mobilenet_v2': MobileNetV2,
    'dct_mobilenet_v2': DctMobileNetV2,
}
VARIANTS = {name: functools.partial(network) for name, network in VARIANTS.items()}
