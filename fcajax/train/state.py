"""What a training run carries from one step to the next."""
from typing import Any

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
  """A pytree of arrays.

  Attributes:
    step: int32 scalar, the number of updates made.
    params: float32 parameters, nested dictionaries.
    batch_stats: running statistics of the normalisation layers ({} where there are none).
    opt_state: the optimiser's state.
    rng: uint32 key data of the run; the key of a step is `fold_in(rng, step)`, so that a resumed
      run draws what the uninterrupted one would have.
    ema: exponential moving average of `params`, or None.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  rng: jax.Array
  ema: Any = None

  def variables(self):
    """What to evaluate with: the averaged parameters where the run keeps them."""
    return {
        'params': self.params if self.ema is None else self.ema,
        'batch_stats': self.batch_stats,
    }


def create_state(model, optimizer, sample, *, seed, ema=False):
  """Initialises a state; runs as one compiled program when called under `jax.jit`.

  Args:
    model: a Linen module.
    optimizer: an `optax.GradientTransformation`.
    sample: an input of the model, `[1, H, W, C]`; only its shape matters.
    seed: int.
    ema: whether to keep averaged parameters.
  """
  init_key, run_key = jax.random.split(jax.random.key(seed))
  keys = dict(zip(('params', 'dropout', 'gate'), jax.random.split(init_key, 3)))
  variables = model.init(keys, sample, train=False)
  params = variables['params']
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(params),
      rng=jax.random.key_data(run_key),
      # A copy, because donated buffers must not be shared.
      ema=jax.tree.map(jnp.copy, params) if ema else None)


def parameter_count(params):
  """The number of scalars in a tree of arrays or shapes."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
