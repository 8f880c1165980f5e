"""Parts shared by the channel attentions: the average, the two dense layers, and the gate."""
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.errors import UserError
from fcajax.typing import AnyArray, Array, Float, Shaped

# U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default, which the published recipes start from.
torch_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def floating(
    x: Shaped[AnyArray, '*n h w c'], dtype: DTypeLike | None, where: str,
) -> Float[AnyArray, '*n h w c']:
  """Casts `x` to `dtype` (None: no cast); raises TypeError if the result is no floating point."""
  x = x if dtype is None else x.astype(dtype)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f'{where} got {x.dtype} values, which a gate in 0..1 would turn to 0; cast '
                    'them to float32 or bfloat16')
  return x


def global_average(x: Float[AnyArray, '*n h w c']) -> Float[Array, '*n c']:
  """Averages over h and w in float32."""
  return jnp.mean(x, axis=(-3, -2), dtype=jnp.float32)


def reduced_width(channels: int, reduction: int, divisor: int = 1) -> int:
  """Returns `channels // reduction`, or the multiple of `divisor` nearest to their quotient.

  Raises:
    UserError: `reduction` is not in 1..channels.
  """
  if not 1 <= reduction <= channels:
    raise UserError(f'reduction={reduction} leaves nothing of channels={channels}; use a '
                    f'reduction from 1 to {channels}')
  if divisor == 1:
    return channels // reduction
  return max(divisor, int(channels / reduction + divisor / 2) // divisor * divisor)


def dense(features: int, use_bias: bool, param_dtype: DTypeLike, kernel_init: Initializer,
          name: str) -> nn.Dense:
  """Builds a dense layer that computes in full float32."""
  return nn.Dense(features, use_bias=use_bias, dtype=jnp.float32, param_dtype=param_dtype,
                  kernel_init=kernel_init, precision=lax.Precision.HIGHEST, name=name)


def excite(z: Float[Array, '*n c'], reduction: int, divisor: int, use_bias: bool,
           param_dtype: DTypeLike, kernel_init: Initializer) -> Float[Array, '*n c']:
  """Computes `W2 relu(W1 z)` with the submodules `reduce` and `expand`.

  Call it inside a compact method; the submodules belong to that module.
  """
  channels = z.shape[-1]
  width = reduced_width(channels, reduction, divisor)
  z = nn.relu(dense(width, use_bias, param_dtype, kernel_init, 'reduce')(z))
  return dense(channels, use_bias, param_dtype, kernel_init, 'expand')(z)


def apply_gate(module: nn.Module, x: Float[AnyArray, '*n h w c'], logits: Float[Array, '*n c'],
               ) -> Float[Array, '*n h w c']:
  """Multiplies each channel by the sigmoid of its logit.

  The gate is sown as 'gate' `[N, C]` into the collection 'intermediates' of `module`.
  """
  gate = nn.sigmoid(logits)
  module.sow('intermediates', 'gate', gate)
  return x * gate[..., None, None, :].astype(x.dtype)
