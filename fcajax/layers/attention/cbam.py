"""CBAM: channel attention from averages and maxima, then spatial attention."""
import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.layers.attention.excite import apply_gate, excite, floating, global_average, torch_init
from fcajax.layers.conv import Conv
from fcajax.layers.norm import BatchNorm
from fcajax.typing import AnyArray, Array, Float


class ConvolutionalBlockAttention(nn.Module):
  """Convolutional block attention (CBAM): a gate for each channel, then one for each position.

      y = x * sigmoid(f(mean of x over h, w) + f(max of x over h, w)),  f(z) = W2 relu(W1 z)
      result = y * sigmoid(norm(conv([max of y over c, mean of y over c])))

  Both gates are float32 whatever the compute dtype. They are sown as 'gate' `[N, C]` and
  'spatial_gate' `[N, H, W, 1]` into the collection 'intermediates'.

  Attributes:
    reduction: W1 has `C // reduction` rows.
    use_bias: biases in W1 and W2. Without them a ResNet-50 has the 28.07M parameters of FcaNet's
      table, with them the 28.09M of the CBAM paper.
    kernel_size: of the spatial convolution, odd.
    norm: a factory called `norm(name=...)`, the result called `(x, train=train)`; None is
      `BatchNorm`.
    dtype: compute dtype and that of the result; None is that of the input.

  Parameters: `reduce`, `expand` (dense), `spatial_conv/kernel` `[k, k, 2, 1]`, `spatial_norm`.

  Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, equations 1 to 3.
  """
  reduction: int = 16
  use_bias: bool = False
  kernel_size: int = 7
  norm: Callable[..., nn.Module] | None = None
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32
  kernel_init: Initializer = torch_init

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, 'n h w c'], train: bool = False) -> Float[Array, 'n h w c']:
    if self.kernel_size % 2 == 0:
      raise UserError(f'kernel_size={self.kernel_size} must be odd, so that the map '
                       'keeps its size')
    x = floating(x, self.dtype, type(self).__name__)
    peak = jnp.max(x, axis=(-3, -2)).astype(jnp.float32)
    # One call for both, so that the two share the dense layers.
    logits = excite(jnp.stack([global_average(x), peak]), self.reduction, 1, self.use_bias,
                    self.param_dtype, self.kernel_init)
    x = apply_gate(self, x, logits[0] + logits[1])
    maps = jnp.stack([jnp.max(x, axis=-1).astype(jnp.float32),
                      jnp.mean(x, axis=-1, dtype=jnp.float32)], axis=-1).astype(x.dtype)
    maps = Conv(1, self.kernel_size, dtype=x.dtype, param_dtype=self.param_dtype,
                name='spatial_conv')(maps)
    norm = (self.norm or functools.partial(BatchNorm, dtype=jnp.float32))(name='spatial_norm')
    gate = nn.sigmoid(norm(maps, train=train).astype(jnp.float32))
    self.sow('intermediates', 'spatial_gate', gate)
    return x * gate.astype(x.dtype)
