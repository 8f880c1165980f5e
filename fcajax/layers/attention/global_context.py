"""GCNet's global context block."""
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.layers.attention.excite import dense, floating, reduced_width, torch_init
from fcajax.typing import AnyArray, Array, Float

mask_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


class GlobalContext(nn.Module):
  """Global context block: adds one vector, computed from the whole map, to every position.

      y = x + W2 relu(LayerNorm(W1 z)),  z = sum over i, j of x[i, j] softmax_ij(w . x[i, j])

  The softmax, the sum and what follows are float32 whatever the compute dtype. W2 starts at zero,
  so the block starts as the identity. It adds in place of gating, so it sows no gate.

  Attributes:
    reduction: W1 has `C // reduction` rows; 16 is the paper's ratio 1/16.
    dtype: compute dtype and that of the result; None is that of the input.

  Parameters: `mask` (dense to 1), `reduce`, `norm` (layer norm), `expand`, all with biases.

  Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
  ICCV Workshops 2019, equation 6.
  """
  reduction: int = 16
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32
  kernel_init: Initializer = torch_init

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '*n h w c'], train: bool = False) -> Float[Array, '*n h w c']:
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
