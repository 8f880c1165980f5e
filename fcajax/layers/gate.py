"""The learned gate of "Learning in the Frequency Domain": which input coefficients to keep."""
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from fcajax.errors import UserError
from fcajax.layers.norm import NormFactory, norm_factory
from fcajax.typing import AnyArray, Array, Float

PenaltyReduction: TypeAlias = Literal['sum', 'mean']
PENALTY_REDUCTIONS = get_args(PenaltyReduction)
BIAS_OFF, BIAS_ON = 0.1, 2.0
"""Initial biases of the two logits: p(on) = sigmoid(1.9) = 0.87, so that training starts open."""


_mix_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def _gate_bias(key, shape, dtype=jnp.float32):
  del key
  return jnp.broadcast_to(jnp.array([BIAS_OFF, BIAS_ON], dtype), shape)


def annealed(temperature: Any, progress: ArrayLike | None) -> ArrayLike:
  """Returns the temperature at `progress` in 0..1 of training (None: at the start).

  Args:
    temperature: a number, or a pair (start, end) between which it changes geometrically:
      start (end / start)^progress.
    progress: fraction of training done.

  Raises:
    UserError: a temperature that is not positive, or not one or two numbers.
  """
  ends = tuple(temperature) if isinstance(temperature, list | tuple) else (temperature,) * 2
  if len(ends) != 2 or min(ends) <= 0:
    raise UserError(f'temperature={temperature!r} must be a positive number or a pair '
                     '(start, end) of them')
  start, end = ends
  if start == end or progress is None:
    return start
  return start * (end / start) ** jnp.clip(progress, 0, 1)


class FrequencyGate(nn.Module):
  """Opens or closes every input channel of every image.

  Each channel has two logits, (off, on) = W2 relu(BN(W1 mean_hw(x) + b1)) + b2, where W1 is a full
  C x C matrix and W2 holds two numbers for each channel. In training the gate is a Gumbel-softmax
  sample, hard in the forward pass, with the gradient of the soft sample (straight through):

      soft = softmax((logits + Gumbel noise) / temperature)[on]
      gate = 1 if soft > 1/2 else 0,  d gate = d soft

  In evaluation the gate is on > off without noise, unless `sample=True` asks for a sample. All of
  it is float32; only the product with x has the dtype of x.

  In training the penalty `penalty * (sum or mean over channels of the gates, averaged over the
  batch)` is sown as 'gate' into collection 'losses'; the gates `[N, C]` and logits `[N, C, 2]` are
  sown as 'open' and 'logits' into 'intermediates'.

  Attributes:
    temperature: of the softmax, a number or (start, end) of a geometric schedule over training.
    penalty: weight of the penalty, 0.1 as published.
    penalty_reduction: 'sum' of the open gates (the paper) or their 'mean' (the published code),
      which is C times weaker.
    norm: batch-norm factory, None for `BatchNorm` in float32.
    axis_name: device axis of that `BatchNorm`.

  Raises:
    UserError: unknown `penalty_reduction`, or a temperature that is not positive.

  Source: Xu et al., "Learning in the Frequency Domain", CVPR 2020, section 3.2.
  """

  temperature: Any = 1.0
  penalty: float = 0.1
  penalty_reduction: PenaltyReduction = 'sum'
  norm: NormFactory | None = None
  axis_name: Any = None

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, 'n h w c'], train: bool = False, progress: ArrayLike | None = None,
      sample: bool = False) -> Float[Array, 'n h w c']:
    """Sets the closed channels of `x` to 0.

    Args:
      x: the coefficients.
      train: sample with the rng stream 'gate' and sow the penalty.
      progress: fraction of training done, for the temperature schedule.
      sample: sample in evaluation too (rng stream 'gate').
    """
    if self.penalty_reduction not in PENALTY_REDUCTIONS:
      raise UserError(f'penalty_reduction={self.penalty_reduction!r} is unknown; '
                       f'use one of {PENALTY_REDUCTIONS}')
    x = jnp.asarray(x)
    temperature = annealed(self.temperature, progress)
    logits = self._logits(x, train)
    margin = logits[..., 1] - logits[..., 0]
    if (train or sample) and not self.is_initializing():
      # The difference of two Gumbel variables is logistic, one draw instead of two.
      margin = margin + jax.random.logistic(self.make_rng('gate'), margin.shape)
    gate = (margin > 0).astype(jnp.float32)
    if train:
      soft = jax.nn.sigmoid(margin / temperature)
      gate = gate + (soft - jax.lax.stop_gradient(soft))
      reduce = jnp.sum if self.penalty_reduction == 'sum' else jnp.mean
      if not self.is_initializing():  # or what `init` returns would hold a penalty to add to
        self.sow('losses', 'gate', self.penalty * reduce(gate, axis=-1).mean())
    self.sow('intermediates', 'open', gate)
    self.sow('intermediates', 'logits', logits)
    return x * gate[:, None, None, :].astype(x.dtype)

  def _logits(self, x, train):
    """The logits (off, on) of every channel, `[N, C, 2]` float32."""
    channels = x.shape[-1]
    x = x.astype(jnp.float32).mean((1, 2))
    x = nn.Dense(channels, dtype=jnp.float32, precision=jax.lax.Precision.HIGHEST,
                 kernel_init=_mix_init, name='mix')(x)
    norm = norm_factory(self.norm, jnp.float32, self.axis_name)(name='norm')
    x = nn.relu(norm(x, train=train).astype(jnp.float32))
    kernel = self.param('logits_kernel', nn.initializers.normal(0.001), (channels, 2))
    bias = self.param('logits_bias', _gate_bias, (channels, 2))
    return x[..., None] * kernel + bias
