"""SimpleBaseline: a backbone, three transposed convolutions and a heat map for each keypoint."""
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.errors import UserError
from fcajax.layers.conv import Conv
from fcajax.layers.norm import BatchNorm
from fcajax.ops.transposed_convolution import double
from fcajax.typing import Array, Float

# N(0, 0.001^2), as published, for the transposed convolutions and the last one.
_small_normal = nn.initializers.normal(0.001)


class Double(nn.Module):
  """Doubles a map by a 4x4 transposed convolution of stride 2 without bias.

  Attributes:
    features: output channels.
    dtype: compute dtype; None promotes input and kernel.
  """
  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin']) -> Float[Array, 'n h2 w2 cout']:
    kernel = self.param('kernel', _small_normal, (4, 4, x.shape[-1], self.features))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return double(x, kernel)


class SimpleBaseline(nn.Module):
  """Finds keypoints in the crop of one person: one heat map a keypoint, 1 at the keypoint.

  The head doubles the last feature map once for each entry of `deconv_features`: a backbone of
  stride 32 and the three default layers give maps of a quarter of the image. The images' sides must
  be multiples of the backbone's stride, or the maps do not lie over the image evenly.

  Attributes:
    backbone: a classification network without head (`create_model(NAME, num_classes=0)`); the name
      alone in `create_model('simple_baseline', backbone=NAME)`.
    backbone_options: of the backbone, where `create_model` gets its name.
    num_keypoints: K, the number of maps.
    deconv_features: channels of the 4x4 transposed convolutions with stride 2, each followed by
      norm and activation.
    dtype: compute dtype of the head; parameters, statistics and maps stay float32.
    norm: a factory called `norm(name=...)`, the result called `(x, train=train)`; None is
      `BatchNorm`.
    axis_name: device axis over which the head's `BatchNorm` takes its statistics.
    activation: applied after every norm of the head.

  With `capture_features=True` the call returns `(heatmaps, features)`: 'backbone', and 'deconv1',
  ... after the activation.

  Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018.
  """
  backbone: nn.Module
  backbone_options: Mapping[str, Any] | None = None
  num_keypoints: int = 17
  deconv_features: tuple[int, ...] = (256, 256, 256)
  dtype: Any = None
  norm: Callable | None = None
  axis_name: Any = None
  activation: Callable = nn.relu

  @nn.compact
  def __call__(
      self, x: Float[Array, 'n h w c'], train: bool = False, capture_features: bool = False,
  ) -> Float[Array, 'n h2 w2 k'] | tuple[Float[Array, 'n h2 w2 k'], dict[str, Array]]:
    if self.num_keypoints < 1:
      raise UserError(f'num_keypoints={self.num_keypoints} must be at least 1')
    norm = self.norm or functools.partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
    x = _last_features(self.backbone, x, train)
    features = {'backbone': x}
    for i, width in enumerate(self.deconv_features, 1):
      x = Double(width, self.dtype, name=f'deconv{i}')(x)
      x = self.activation(norm(name=f'deconv{i}_norm')(x, train=train))
      features[f'deconv{i}'] = x
    heatmaps = Conv(self.num_keypoints, 1, use_bias=True, dtype=self.dtype,
                    kernel_init=_small_normal, name='head')(x)
    heatmaps = heatmaps.astype(jnp.float32)
    return (heatmaps, features) if capture_features else heatmaps


def _last_features(
    backbone: nn.Module, x: Float[Array, 'n h w c'], train: bool,
) -> Float[Array, 'n h2 w2 c2']:
  if getattr(backbone, 'num_classes', None) != 0:
    raise UserError('the backbone of SimpleBaseline must be a network without head; create it with '
                    'num_classes=0')
  _, features = backbone(x, train=train, capture_features=True)
  return features[backbone.feature_info()[-1].name]


VARIANTS = {'simple_baseline': functools.partial(SimpleBaseline, backbone='resnet50')}
