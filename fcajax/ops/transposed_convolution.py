"""The transposed convolution that doubles a map: kernel 4x4, stride 2, PyTorch's padding of 1."""
import jax.numpy as jnp
from jax import lax

from fcajax.errors import UserError
from fcajax.ops.convolution import forced_lowering
from fcajax.ops.target import is_cpu_only
from fcajax.typing import Array, Float

_KERNEL = 4


def double(
    x: Float[Array, 'n h w cin'], kernel: Float[Array, 'k k cin cout'],
) -> Float[Array, 'n h2 w2 cout']:
  """Correlates the input, with zeros between its positions, with the kernel: `[n, 2h, 2w, cout]`.

      y[2m + a] = sum_p xp[m + a + p] kernel[2p + a],   a, p in {0, 1}

  along each axis, where xp is x with one zero on either side. PyTorch's kernel is this one turned
  by half a circle.

  On a CPU the four output phases are one matrix product: XLA there computes the gradients of the
  library's form in scalar loops, and ten times slower.

  Raises:
    UserError: the kernel is not 4x4.
  """
  if kernel.shape[0] != _KERNEL:
    raise UserError(f'the kernel must be {_KERNEL}x{_KERNEL}, not {kernel.shape[0]} square')
  if forced_lowering() is None and is_cpu_only():
    return _phases(x, kernel)
  return lax.conv_transpose(
      x, kernel, (2, 2), ((2, 2), (2, 2)), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _phases(x, kernel):
  n, h, w, _ = x.shape
  cin, cout = kernel.shape[2:]
  # (p, a, q, b, cin, cout) -> (p, q, cin) x (a, b, cout)
  weights = kernel.reshape(2, 2, 2, 2, cin, cout).transpose(0, 2, 4, 1, 3, 5)
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  taps = jnp.concatenate(
      [padded[:, p:p + h + 1, q:q + w + 1] for p in (0, 1) for q in (0, 1)], axis=-1)
  y = taps.reshape(-1, 4 * cin) @ weights.reshape(4 * cin, 4 * cout)
  y = y.reshape(n, h + 1, w + 1, 2, 2, cout)
  rows = [jnp.stack([y[:, a:a + h, b:b + w, a, b] for b in (0, 1)], axis=3) for a in (0, 1)]
  return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, cout)
