"""Parts that the networks share: stem, strides of the stages, chosen features, and the head."""
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from flax import linen as nn

from fcajax.errors import UserError
from fcajax.ops.pooling import max_pool
from fcajax.typing import AnyArray, Array, Float

Stem: TypeAlias = Literal['imagenet', 'cifar', 'none']

# U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), as PyTorch draws a linear layer.
head_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class FeatureInfo(NamedTuple):
  """One feature map of a network: its name, its channels, and its stride in image pixels."""
  name: str
  channels: int
  stride: int


def select_features(
    features_only: Iterable[int | str] | None, infos: Sequence[FeatureInfo],
) -> tuple[FeatureInfo, ...]:
  """Returns the feature maps that `features_only` chooses, in its order; all if it is None.

  Args:
    features_only: names ('stem', 'stage1', ...) or indices (0 is the stem, k is stage k).
    infos: the feature maps of the network.

  Raises:
    UserError: a choice that the network does not have, a repeated one, or none.
  """
  if features_only is None:
    return tuple(infos)
  known = {info.name: info for info in infos}
  indices = {int(info.name.removeprefix('stage')) if info.name != 'stem' else 0: info
             for info in infos}
  chosen = []
  for choice in [features_only] if isinstance(features_only, str) else features_only:
    info = known.get(choice) if isinstance(choice, str) else indices.get(choice)
    if info is None:
      raise UserError(f'features_only={features_only!r}: {choice!r} is not one of '
                      f'{", ".join(known)}, or {", ".join(map(str, indices))}')
    if info in chosen:
      raise UserError(f'features_only={features_only!r} names {info.name} twice')
    chosen.append(info)
  if not chosen:
    raise UserError(f'features_only is empty; choose some of {", ".join(known)}')
  return tuple(chosen)


def is_complete(features: Mapping[str, Any], wanted: Sequence[FeatureInfo] | None) -> bool:
  """Returns True if every wanted feature map is there, so that later stages can be left out."""
  return wanted is not None and all(info.name in features for info in wanted)


def describe_stages(
    stem: tuple[int, int, int] | None, channels: Sequence[int], strides: Sequence[int],
    input_stride: int = 1) -> tuple[FeatureInfo, ...]:
  """Returns the stem's feature map, if there is a stem, and those of all stages.

  Args:
    stem: (channels, stride of its feature map, stride at the input of stage 1), or None.
    channels, strides: of each stage.
    input_stride: image pixels per input position; 8 for block-DCT coefficients.
  """
  infos, stride = [], input_stride
  if stem is not None:
    width, stem_stride, reached = stem
    infos.append(FeatureInfo('stem', width, stride * stem_stride))
    stride *= reached
  for i, (width, step) in enumerate(zip(channels, strides)):
    stride *= step
    infos.append(FeatureInfo(f'stage{i + 1}', width, stride))
  return tuple(infos)


def apply_stem(
    stem: Stem, width: int, conv: Callable[..., Any], norm: Callable[..., Any],
    activation: Callable[..., Any], x: Float[AnyArray, 'n h w c'], train: bool,
) -> tuple[Float[AnyArray, 'n h2 w2 c2'], Float[AnyArray, 'n h4 w4 c2']]:
  """Applies the layers ahead of stage 1; returns (the feature map 'stem', the input of stage 1).

  Args:
    stem: 'imagenet' (7x7 stride 2, then max pooling stride 2), 'cifar' (3x3) or 'none'.
    width: output channels.
    conv, norm, activation: the network's own.
    x: the input of the network.
    train: use the statistics of the batch.
  """
  if stem == 'none':
    return x, x
  check_stem(stem)
  x = conv(width, *((7, 2) if stem == 'imagenet' else (3, 1)), name='stem_conv')(x)
  x = activation(norm(name='stem_norm')(x, train=train))
  return x, max_pool(x) if stem == 'imagenet' else x


def check_stem(stem: Any, allowed: Sequence[str] = ('imagenet', 'cifar', 'none')) -> None:
  """Raises `UserError` unless `stem` is one of `allowed`."""
  if stem not in allowed:
    raise UserError(f'stem={stem!r} is not one of {", ".join(map(repr, allowed))}')


def classify(x: Float[Array, 'n c'], num_classes: int) -> Float[Array, 'n k']:
  """Applies the dense layer 'head' to pooled features; without classes returns them unchanged.

  Call it inside a compact method; the layer belongs to that module.
  """
  if not num_classes:
    return x
  return nn.Dense(num_classes, kernel_init=head_init, name='head')(x)


def global_pool(x: Float[AnyArray, 'n h w c']) -> Float[Array, 'n c']:
  """Averages over all positions in float32."""
  return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def check_stages(stage_sizes: Any, **options: Any) -> None:
  """Raises `UserError` unless every option that is not None has an entry for each stage."""
  for name, values in {'stage_sizes': stage_sizes, **options}.items():
    if values is not None and not (
        isinstance(values, tuple | list) and len(values) >= max(1, len(stage_sizes))):
      raise UserError(f'{name}={values!r} needs one entry for each stage, and stage_sizes='
                      f'{stage_sizes!r} gives the blocks of each stage')


def select_block(
    blocks: Mapping[str, type[nn.Module]], name: str, groups: int, base_width: int,
) -> type[nn.Module]:
  """Returns the class `blocks[name]`.

  Raises:
    UserError: an unknown name, or groups that this block does not have.
  """
  if name not in blocks:
    raise UserError(f'block={name!r} is not one of {", ".join(map(repr, blocks))}')
  if name == 'basic' and (groups, base_width) != (1, 64):
    raise UserError("groups and base_width need block='bottleneck'")
  return blocks[name]


def plan_strides(
    stem: str, stage_strides: Sequence[int], output_stride: int | None,
) -> tuple[list[int], list[tuple[int, int]]]:
  """Returns the stride and the dilations (first, rest) of each stage under `output_stride`.

  A stage that would stride beyond `output_stride` keeps stride 1 and dilates by the stride it gave
  up: its strided convolution still has the dilation reached so far, everything behind it the new
  one. The result then holds the strided network's values at every s-th position.

  Raises:
    UserError: an `output_stride` that these strides cannot reach.
  """
  reached = {'imagenet': 4}.get(stem, 1)
  total = reached * math.prod(stage_strides)
  if output_stride is not None and not (
      reached <= output_stride <= total and total % output_stride == 0):
    allowed = [s for s in range(reached, total + 1) if total % s == 0 and s % reached == 0]
    raise UserError(f'output_stride={output_stride} is not one of {allowed}, what this stem and '
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


def residual_feature_info(network: Any, expansion: int) -> tuple[FeatureInfo, ...]:
  """Returns the feature maps of a network with the fields of `ResNet` that it gives out."""
  stages = len(network.stage_sizes)
  check_stages(network.stage_sizes, stage_strides=network.stage_strides)
  strides, _ = plan_strides(network.stem, network.stage_strides[:stages], network.output_stride)
  stem = {'imagenet': (network.width, 2, 4), 'cifar': (network.width, 1, 1)}.get(network.stem)
  channels = [network.width * 2**i * expansion for i in range(stages)]
  return select_features(network.features_only, describe_stages(
      stem, channels, strides, network.input_stride))
