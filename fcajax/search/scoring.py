"""Fine-tunes frequency candidates from a common base and scores them on held-out images."""
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fcajax import trees
from fcajax.errors import TrainingDiverged, UserError
from fcajax.layers.attention import basis_collection
from fcajax.search.fine_tuning import FineTuning
from fcajax.search.runners import Runner, make_runner, number_of_seeds, stack
from fcajax.train.train_state import TrainState
from fcajax.typing import Float


def initial_states(
    tuning: FineTuning, base: dict[str, Any], seeds: Sequence[int],
    sample: jax.ShapeDtypeStruct) -> TrainState:
  """Draws the states that all candidates start from: the base's weights, new attention.

  Args:
    tuning: the fine-tuning of one candidate.
    base: {'params', 'batch_stats'} of the network without attention.
    seeds: each draws the attention's weights.
    sample: an input of the model, `[1, H, W, C]`.

  Returns:
    A state whose leaves have a leading axis of seeds.

  Raises:
    UserError: the base is of another architecture; names what does not fit.
  """
  def draw(key):
    init_key, run_key = jax.random.split(key)
    fresh = tuning.model.init(init_key, jnp.zeros(sample.shape, sample.dtype), train=False)
    params = graft(fresh['params'], base['params'])
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params,
        batch_stats=graft(fresh.get('batch_stats', {}), base.get('batch_stats', {})),
        opt_state=tuning.optimizer.init(params), rng=jax.random.key_data(run_key))
  draw = jax.jit(draw)
  return stack([draw(jax.random.key(seed)) for seed in seeds])


def graft(fresh: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
  """Replaces every leaf of `fresh` outside attention by the base's.

  Raises:
    UserError: a leaf is missing in one of the two trees, or has another shape.
  """
  old = trees.by_name(base)
  wanted = {name: shape for name, shape in trees.shapes(fresh).items() if 'attention' not in name}
  problems = trees.differences(trees.shapes(base), wanted, there='in the base',
                               here='in the model that is searched')
  if problems:
    raise UserError('the base network does not fit the model that is searched. It must be the same '
                    f'network without attention, with the same classes:\n{trees.listing(problems)}')

  def choose(path, leaf):
    name = trees.path_name(path)
    return jnp.asarray(old[name]) if name in wanted else leaf
  return jax.tree.map_with_path(choose, fresh)


def candidate_filters(
    model: nn.Module, candidates: Sequence[Sequence[Any]],
    sample: jax.ShapeDtypeStruct) -> dict[str, Any]:
  """Stacks the filters of all attention layers for each candidate (its pairs (u, v))."""
  return stack([basis_collection(model, list(candidate), sample, train=False)
                for candidate in candidates])


def fine_tune(
    tuning: FineTuning, states: TrainState, candidates: Sequence[Sequence[Any]], data: Any,
    sample: jax.ShapeDtypeStruct) -> Runner:
  """Fine-tunes every candidate from every seed's state.

  All candidates of a seed see the same batches in the same order, with the same augmentation;
  seed s of S takes batches s, S + s, 2 S + s, ... of the training stream, which starts anew with
  every call.

  Args:
    tuning: the fine-tuning of one candidate.
    states: from `initial_states`; S seeds.
    candidates: the pairs (u, v) of each candidate.
    data: has `train_iterator()`, as `fcajax.input_pipeline.Pipeline`.
    sample: an input of the model, `[1, H, W, C]`.

  Returns:
    The runs, for `held_out_accuracy`; `variables()` gives the trained `{'params', 'batch_stats'}`.

  Raises:
    TrainingDiverged: the last loss of a run is not finite.
  """
  filters = candidate_filters(tuning.model, candidates, sample)
  runner = make_runner(tuning, states, filters, len(candidates))
  seeds = number_of_seeds(states)
  # Augmentation draws from the key of the seed, which all candidates share.
  keys = jnp.asarray(states.rng)
  iterator = data.train_iterator()
  try:
    for step in range(tuning.steps):
      drawn = stack(list(itertools.islice(iterator, seeds)))
      batch = tuning.prepare(keys, step, drawn)
      # Without this wait the batches of all updates would pile up on the devices.
      runner.wait()
      runner.train(batch)
  finally:
    if hasattr(iterator, 'close'):
      iterator.close()
  losses = runner.losses()
  if not np.isfinite(losses).all():
    seed, candidate = np.argwhere(~np.isfinite(losses))[0]
    raise TrainingDiverged(
        tuning.steps, f'the loss of frequencies {list(candidates[candidate])}, seed number {seed}, '
        'is not finite after fine-tuning; lower config.search.learning_rate')
  return runner


def held_out_accuracy(
    tuning: FineTuning, runner: Runner, data: Any) -> Float[np.ndarray, 'seeds count']:
  """Scores what `fine_tune` returned on `data.evaluation_batches()`, in percent."""
  for batch in data.evaluation_batches():
    runner.evaluate(tuning.prepare_evaluation(batch))
  return 100 * runner.score()
