"""Where a run starts: from its newest checkpoint, from other weights, or from the seed."""
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from fcajax.train.engine import Engine
from fcajax.train.evaluate import History
from fcajax.train.plan import Plan
from fcajax.train.train_state import TrainState
from fcajax.weights.merging import start_weights
from fcajax.workdir import layout
from fcajax.workdir.checkpoints import Checkpoints


def start(plan: Plan, programs: Engine, checkpoints: Checkpoints, iterator: Iterator[Any],
          say: Callable[[str], None]) -> tuple[TrainState, int, History]:
  """Returns (state, step, history) to go on from, and sets the position of the data.

  Args:
    plan: of the run.
    programs: of the run.
    checkpoints: of the work directory.
    iterator: over the training data.
    say: prints a line.

  Raises:
    UserError: the checkpoint or the weights do not fit the network or the classes.
  """
  latest = checkpoints.latest_step()
  if latest is None:
    state = programs.initialize()
    source = plan.config.init_from
    return (_with_weights(state, plan, source, say) if source else state), 0, History()
  layout.check_classes(
      plan.directory, checkpoints.class_names(latest), plan.metadata['class_names'])
  state, position, history = checkpoints.restore(latest, programs.state_shapes)
  iterator.set_state(json.loads(position))
  say(f'resuming {plan.directory} after step {latest}/{plan.total_steps}')
  return plan.strategy.place_state(state), latest, History(**history)


def _with_weights(state: TrainState, plan: Plan, source: str | pathlib.Path,
                  say: Callable[[str], None]) -> TrainState:
  """Returns a new state with the weights of a work directory or file."""
  host = plan.strategy.to_host(state)
  merged, kept = start_weights({'params': host.params, 'batch_stats': host.batch_stats}, source)
  say(f'weights from {source}' + (f'; new: {", ".join(kept)}' if kept else ''))
  params = merged['params']
  return plan.strategy.place_state(host.replace(
      params=params, batch_stats=merged.get('batch_stats', {}),
      ema=None if host.ema is None else params))
