"""Efficient channel attention (ECA-Net)."""
import math

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.attention.excite import apply_gate, floating, global_average, torch_init
from fcajax.typing import AnyArray, Array, Float


class EfficientChannelAttention(nn.Module):
  """Efficient channel attention.

      y = x * sigmoid(conv_k(z)),  z = mean of x over h and w

  conv_k is one filter of k taps along the channels, zero padded, in float32. The gate is sown as
  'gate' `[N, C]` into the collection 'intermediates'.

  Attributes:
    kernel_size: k, odd; None: |log2(C) / gamma + b / gamma| cut to an integer, and the next odd
      one where that is even.
    gamma, b: of that rule.
    dtype: of the result; None is that of the input.

  Parameters: `conv/kernel` `[k, 1, 1]` (PyTorch's `conv.weight` `[1, 1, k]` transposed).

  Source: Wang et al., "ECA-Net", CVPR 2020, equations 9 and 12.
  """
  kernel_size: int | None = None
  gamma: float = 2
  b: float = 1
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '*n h w c'], train: bool = False) -> Float[Array, '*n h w c']:
    del train
    x = floating(x, self.dtype, type(self).__name__)
    size = self.kernel_size or eca_kernel_size(x.shape[-1], self.gamma, self.b)
    if size % 2 == 0 or size < 1:
      raise UserError(f'kernel_size={size} must be odd and positive, so that the channel itself '
                      'is in the middle')
    conv = nn.Conv(1, (size,), padding=size // 2, use_bias=False, dtype=jnp.float32,
                   param_dtype=self.param_dtype, precision=lax.Precision.HIGHEST,
                   kernel_init=torch_init, name='conv')
    return apply_gate(self, x, conv(global_average(x)[..., None])[..., 0])


def eca_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
  """Returns the kernel size that ECA-Net gives `channels` channels (its equation 12)."""
  size = int(abs((math.log2(channels) + b) / gamma))
  return size if size % 2 else size + 1
