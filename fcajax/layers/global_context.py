"""GCNet's global context block."""
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcajax.layers.excite import dense, floating, reduced_width, torch_init

mask_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class GlobalContext(nn.Module):
  """Global context block, `[N, H, W, C] -> [N, H, W, C]`.

      y = x + W2 relu(LayerNorm(W1 z)),  z = sum over i, j of x[i, j] softmax_ij(w . x[i, j])

  The softmax, the sum and what follows are float32 whatever the compute dtype. W2 starts at zero,
  so the block starts as the identity. It adds in place of gating, so it sows no gate.

  Args:
    reduction: W1 has `C // reduction` rows; 16 is the paper's ratio 1/16.
    dtype: compute dtype and that of the result; None is the input's.

  Parameters: `mask` (dense to 1), `reduce`, `norm` (layer norm), `expand`, all with biases.

  Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
  ICCV Workshops 2019, equation 6.
  """
  reduction: int = 16
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable = torch_init

  @nn.compact
  def __call__(self, x, train=False):
    del train
    x = floating(x, self.dtype, type(self).__name__)
    channels = x.shape[-1]
    width = reduced_width(channels, self.reduction)
    mask = nn.Dense(1, dtype=x.dtype, param_dtype=self.param_dtype, kernel_init=mask_init,
                    name='mask')(x)
    mask = jax.nn.softmax(mask.astype(jnp.float32), axis=(-3, -2))
    z = jnp.sum(x.astype(jnp.float32) * mask, axis=(-3, -2))
    z = dense(width, True, self.param_dtype, self.kernel_init, 'reduce')(z)
    # Few values with one large mean: E[z^2] - E[z]^2 would cancel in float32.
    z = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, param_dtype=self.param_dtype,
                     use_fast_variance=False, name='norm')(z)
    z = dense(channels, True, self.param_dtype, nn.initializers.zeros_init(), 'expand')(nn.relu(z))
    return x + z[..., None, None, :].astype(x.dtype)
