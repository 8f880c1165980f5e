"""CBAM: channel attention from averages and maxima, then spatial attention."""
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.conv import Conv
from fcajax.layers.excite import excite, floating, global_average, torch_init
from fcajax.layers.norm import BatchNorm


class ConvolutionalBlockAttention(nn.Module):
  """CBAM, `[N, H, W, C] -> [N, H, W, C]`.

      y = x * sigmoid(f(mean of x over H, W) + f(max of x over H, W)),  f(z) = W2 relu(W1 z)
      result = y * sigmoid(norm(conv([max of y over C, mean of y over C])))

  Both gates are float32 whatever the compute dtype. They are sown as 'gate' `[N, C]` and
  'spatial_gate' `[N, H, W, 1]` in the collection 'intermediates'.

  Args:
    reduction: W1 has `C // reduction` rows.
    use_bias: biases in W1 and W2. Without them a ResNet-50 has the 28.07M parameters of FcaNet's
      table, with them the 28.09M of the CBAM paper.
    kernel_size: of the spatial convolution, odd.
    norm: a factory called `norm(name=...)`, the result called `(x, train=train)`; None is
      `BatchNorm`.
    dtype: compute dtype and that of the result; None is the input's.

  Parameters: `reduce`, `expand` (dense), `spatial_conv/kernel` `[k, k, 2, 1]`, `spatial_norm`.

  Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, equations 1 to 3.
  """
  reduction: int = 16
  use_bias: bool = False
  kernel_size: int = 7
  norm: Callable | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable = torch_init

  @nn.compact
  def __call__(self, x, train=False):
    if self.kernel_size % 2 == 0:
      raise ValueError(f'kernel_size={self.kernel_size} must be odd, so that the map '
                       'keeps its size')
    x = floating(x, self.dtype, type(self).__name__)
    peak = jnp.max(x, axis=(-3, -2)).astype(jnp.float32)
    # One call for both, so that the two share the dense layers.
    logits = excite(jnp.stack([global_average(x), peak]), self.reduction, 1, self.use_bias,
                    self.param_dtype, self.kernel_init)
    gate = nn.sigmoid(logits[0] + logits[1])
    self.sow('intermediates', 'gate', gate)
    x = x * gate[..., None, None, :].astype(x.dtype)

    maps = jnp.stack([jnp.max(x, axis=-1).astype(jnp.float32),
                      jnp.mean(x, axis=-1, dtype=jnp.float32)], axis=-1).astype(x.dtype)
    maps = Conv(1, self.kernel_size, dtype=x.dtype, param_dtype=self.param_dtype,
                name='spatial_conv')(maps)
    norm = (self.norm or functools.partial(BatchNorm, dtype=jnp.float32))(name='spatial_norm')
    gate = nn.sigmoid(norm(maps, train=train).astype(jnp.float32))
    self.sow('intermediates', 'spatial_gate', gate)
    return x * gate.astype(x.dtype)
