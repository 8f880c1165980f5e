"""What the channel attentions share: the average, the two dense layers, and how they start."""
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default, which the published recipes start from.
torch_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def floating(x, dtype, where):
  """`x` in `dtype` (None: its own); raises TypeError where that holds no fractions."""
  x = x if dtype is None else x.astype(dtype)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f'{where} got {x.dtype} values, which a gate in 0..1 would turn to 0; cast '
                    'them to float32 or bfloat16')
  return x


def global_average(x):
  """The mean over H and W, `[..., H, W, C] -> [..., C]`, in float32."""
  return jnp.mean(x, axis=(-3, -2), dtype=jnp.float32)


def reduced_width(channels, reduction, divisor=1):
  """`channels // reduction`, or the multiple of `divisor` nearest to their quotient."""
  if not 1 <= reduction <= channels:
    raise ValueError(f'reduction={reduction} leaves nothing of channels={channels}; use a '
                     f'reduction from 1 to {channels}')
  if divisor == 1:
    return channels // reduction
  return max(divisor, int(channels / reduction + divisor / 2) // divisor * divisor)


def dense(features, use_bias, param_dtype, kernel_init, name):
  """A dense layer in full float32."""
  return nn.Dense(features, use_bias=use_bias, dtype=jnp.float32, param_dtype=param_dtype,
                  kernel_init=kernel_init, precision=lax.Precision.HIGHEST, name=name)


def excite(z, reduction, divisor, use_bias, param_dtype, kernel_init):
  """`W2 relu(W1 z)`, `[..., C] -> [..., C]`, with the submodules `reduce` and `expand`.

  Called inside a compact method; the submodules belong to that module.
  """
  channels = z.shape[-1]
  width = reduced_width(channels, reduction, divisor)
  z = nn.relu(dense(width, use_bias, param_dtype, kernel_init, 'reduce')(z))
  return dense(channels, use_bias, param_dtype, kernel_init, 'expand')(z)
