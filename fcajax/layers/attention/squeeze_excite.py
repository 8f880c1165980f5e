"""Squeeze-and-excitation."""
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from fcajax.layers.attention.excite import apply_gate, excite, floating, global_average, torch_init
from fcajax.typing import AnyArray, Array, Float


class SqueezeExcite(nn.Module):
  """Squeeze-and-excitation.

      y = x * sigmoid(W2 relu(W1 z)),  z = mean of x over h and w

  The gate is computed in float32 whatever the compute dtype, and is sown as 'gate' `[N, C]` into
  the collection 'intermediates'.

  Attributes:
    reduction: W1 has `C // reduction` rows.
    divisor: that width is rounded to the nearest multiple of `divisor`, at least one of them
      (8 in timm).
    use_bias: biases in W1 and W2; FcaNet's baseline has none, timm's has.
    dtype: of the result; None is that of the input.

  Parameters: `reduce/kernel` `[C, C/r]`, `expand/kernel` `[C/r, C]` (PyTorch's `fc.0.weight` and
  `fc.2.weight` transposed), and `bias` beside them with `use_bias`.

  Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, equations 2 to 4.
  """
  reduction: int = 16
  divisor: int = 1
  use_bias: bool = False
  dtype: DTypeLike | None = None
  param_dtype: DTypeLike = jnp.float32
  kernel_init: Initializer = torch_init

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '*n h w c'], train: bool = False) -> Float[Array, '*n h w c']:
    del train
    x = floating(x, self.dtype, type(self).__name__)
    logits = excite(global_average(x), self.reduction, self.divisor, self.use_bias,
                    self.param_dtype, self.kernel_init)
    return apply_gate(self, x, logits)
