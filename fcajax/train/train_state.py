"""What a training run carries from one step to the next."""
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
  """A pytree of arrays, or of what stands for them: shapes, shardings, restore arguments.

  Attributes:
    step: int32 scalar, the number of updates made.
    params: float32 parameters, nested dictionaries.
    batch_stats: running statistics of the normalisation layers ({} if there are none).
    opt_state: the optimiser's state.
    rng: uint32 key data of the run; the key of a step is `fold_in(rng, step)`, so that a resumed
      run draws what the uninterrupted one would have.
    ema: exponential moving average of `params`, or None.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  rng: Any
  ema: Any = None

  def variables(self) -> dict[str, Any]:
    """Returns what to evaluate with: the averaged parameters if the run keeps them."""
    return {
        'params': self.params if self.ema is None else self.ema,
        'batch_stats': self.batch_stats,
    }


def create_state(model: Any, optimizer: optax.GradientTransformation, inputs: Sequence[Any], *,
                 seed: int, ema: bool = False,
                 rng_streams: Sequence[str] = ('dropout', 'gate')) -> TrainState:
  """Initialises a state; runs as one compiled program when called under `jax.jit`.

  Args:
    model: a Linen module.
    optimizer: its `init` makes the optimiser's state.
    inputs: positional arguments of the model, arrays; only their shapes and dtypes matter.
    seed: of the parameters and of the run's random numbers.
    ema: whether to keep averaged parameters.
    rng_streams: random number streams of the model besides 'params'.
  """
  init_key, run_key = jax.random.split(jax.random.key(seed))
  names = ('params', *rng_streams)
  keys = dict(zip(names, jax.random.split(init_key, len(names))))
  variables = model.init(keys, *inputs, train=False)
  params = variables['params']
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(params),
      rng=jax.random.key_data(run_key),
      # A copy, because donated buffers must not be shared.
      ema=jax.tree.map(jnp.copy, params) if ema else None)
