"""The heads of two-stage detectors: region proposals, boxes, masks."""
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv, kaiming_normal
from fcajax.models.necks.fpn import xavier_uniform
from fcajax.typing import Array, Float


class ProposalHead(nn.Module):
  """A 3x3 convolution, then objectness and box regression of each anchor; shared by all levels.

  Attributes:
    anchors: anchors of one position.
    channels: width of the 3x3 convolution.
    dtype: of the computation; the outputs are float32.

  Source: Ren et al., "Faster R-CNN", 2015, section 3.1.
  """
  anchors: int = 3
  channels: int = 256
  dtype: Any = None

  def setup(self):
    start = nn.initializers.normal(0.01)
    self.conv = Conv(self.channels, 3, use_bias=True, dtype=self.dtype, kernel_init=start)
    self.objectness = Conv(self.anchors, 1, use_bias=True, dtype=self.dtype, kernel_init=start)
    self.deltas = Conv(4 * self.anchors, 1, use_bias=True, dtype=self.dtype, kernel_init=start)

  def __call__(
      self, x: Float[Array, 'n h w c'],
  ) -> tuple[Float[Array, 'n h w a'], Float[Array, 'n h w d']]:
    x = nn.relu(self.conv(x))
    return self.objectness(x).astype(jnp.float32), self.deltas(x).astype(jnp.float32)


class BoxHead(nn.Module):
  """Two hidden layers, then class logits and the box regression of each class.

  Attributes:
    logits: classes with the background.
    boxes: classes with a box of their own.
    width: of the hidden layers.
    dtype: of the hidden layers; the outputs are float32.
  """
  logits: int
  boxes: int
  width: int = 1024
  dtype: Any = None

  @nn.compact
  def __call__(
      self, x: Float[Array, 'n s s c'],
  ) -> tuple[Float[Array, 'n k'], Float[Array, 'n b 4']]:
    x = x.reshape(x.shape[0], -1)
    for name in ('fc1', 'fc2'):
      x = nn.relu(nn.Dense(self.width, dtype=self.dtype, kernel_init=xavier_uniform, name=name)(x))
    logits = nn.Dense(self.logits, dtype=self.dtype, kernel_init=nn.initializers.normal(0.01),
                      name='logits')(x)
    deltas = nn.Dense(4 * self.boxes, dtype=self.dtype, kernel_init=nn.initializers.normal(0.001),
                      name='deltas')(x)
    return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(-1, self.boxes, 4)


class MaskHead(nn.Module):
  """Convolutions, a transposed convolution to twice the size, and mask logits of each class.

  Attributes:
    masks: classes with a mask of their own.
    convs: 3x3 convolutions.
    channels: their width.
    dtype: of the computation; the logits are float32.

  Source: He et al., "Mask R-CNN", ICCV 2017, figure 4 (right).
  """
  masks: int
  convs: int = 4
  channels: int = 256
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n s s c']) -> Float[Array, 'n t t k']:
    for i in range(self.convs):
      x = nn.relu(Conv(self.channels, 3, use_bias=True, dtype=self.dtype, name=f'conv{i + 1}')(x))
    x = nn.relu(Upsample(self.channels, dtype=self.dtype, name='upsample')(x))
    logits = Conv(self.masks, 1, use_bias=True, dtype=self.dtype, name='logits')(x)
    return logits.astype(jnp.float32)


class Upsample(nn.Module):
  """Transposed 2x2 convolution with stride 2: a matrix product for each cell of the 2x2 block.

      y[2i + a, 2j + b] = sum_c x[i, j, c] kernel[a, b, c] + bias
  """
  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n u v k']:
    shape = (2, 2, x.shape[-1], self.features)
    kernel = self.param('kernel', kaiming_normal, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = jnp.einsum('nijc,abck->niajbk', x, kernel)
    n, height, _, width, _, features = y.shape
    return y.reshape(n, 2 * height, 2 * width, features) + bias
