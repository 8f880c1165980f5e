"""Two ways to train candidates batch by batch: all in one program, or one after another."""
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from fcajax.errors import UserError
from fcajax.search.fine_tuning import RUN_AXIS, FineTuning
from fcajax.train.train_state import TrainState
from fcajax.typing import Float


def stack(trees: list[Any]) -> Any:
  """Stacks trees of equal structure, as NumPy arrays with a new leading axis."""
  return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def number_of_seeds(states: TrainState) -> int:
  """Returns the length of the leading axis that all leaves share."""
  return jax.tree.leaves(states)[0].shape[0]


class RunTogether:
  """Trains all candidates in one program, spread over the devices.

  Candidates and seeds share one axis of runs, candidate by candidate: JAX has no rule for the
  kernel gradient of a convolution under two `vmap`s.
  """

  def __init__(self, tuning: FineTuning, states: TrainState, filters: Any, count: int):
    self._count, self._seeds = count, number_of_seeds(states)
    runs = count * self._seeds
    # Every device takes equally many runs; the last run is repeated to fill up.
    devices = tuning.mesh.size
    take = np.minimum(np.arange(-(-runs // devices) * devices), runs - 1)
    candidate, self._seed = take // self._seeds, take % self._seeds
    self._spread = jax.sharding.NamedSharding(tuning.mesh, P(RUN_AXIS))
    self._everywhere = jax.sharding.NamedSharding(tuning.mesh, P())
    self._filters = self._place(filters, candidate)
    self._states = self._place(states, self._seed)
    self._sums, self._losses = 0.0, None
    self._step, self._eval = tuning.mapped_programs
    self._seed = self._place(self._seed, slice(None))

  def _place(self, tree, index):
    return jax.device_put(jax.tree.map(lambda leaf: leaf[index], tree), self._spread)

  def train(self, batch: dict[str, Any]) -> None:
    """Makes one update; `batch` is prepared, its leaves `[S, B, ...]`."""
    batch = jax.device_put(batch, self._everywhere)
    try:
      self._states, self._losses = self._step(self._states, self._filters, self._seed, batch)
    except NotImplementedError as error:
      raise UserError("jax.vmap cannot train this network's grouped convolutions; set "
                      "config.search.batching='loop'") from error

  def wait(self) -> None:
    """Blocks until the updates so far are done."""
    jax.block_until_ready(self._losses)

  def evaluate(self, batch: dict[str, Any]) -> None:
    """Scores one prepared evaluation batch."""
    batch = jax.device_put(batch, self._everywhere)
    self._sums = self._sums + self._eval(self._states, self._filters, batch)

  def _by_run(self, leaf):
    leaf = np.asarray(leaf)[:self._count * self._seeds]
    return leaf.reshape(self._count, self._seeds, *leaf.shape[1:])

  def variables(self) -> dict[str, Any]:
    """Returns the trained variables, every leaf with leading axes `[count, S]`."""
    return jax.tree.map(self._by_run, self._states.variables())

  def losses(self) -> Float[np.ndarray, 'seeds count']:
    """Returns the loss of every run in its last update."""
    return self._by_run(self._losses).T

  def score(self) -> Float[np.ndarray, 'seeds count']:
    """Returns the task's best metric of every run over the batches so far."""
    sums = self._by_run(self._sums).astype(np.float64)
    return (sums[..., 0] / sums[..., 1]).T


@dataclasses.dataclass
class _Run:
  """One candidate and seed on its device."""
  device: jax.Device
  seed: int
  filters: Any
  state: TrainState
  loss: Any = None
  sums: Any = 0.0


class RunInTurn:
  """Trains one candidate and seed after another; same interface as `RunTogether`."""

  def __init__(self, tuning: FineTuning, states: TrainState, filters: Any, count: int):
    self._seeds = number_of_seeds(states)
    self._devices = devices = list(tuning.mesh.devices)
    self._runs = []
    for candidate in range(count):
      device = devices[candidate % len(devices)]
      own = jax.device_put(jax.tree.map(lambda leaf, i=candidate: leaf[i], filters), device)
      for seed in range(self._seeds):
        state = jax.device_put(jax.tree.map(lambda leaf, i=seed: leaf[i], states), device)
        self._runs.append(_Run(device, seed, own, state))
    self._step, self._eval = tuning.programs

  def train(self, batch: dict[str, Any]) -> None:
    """Makes one update; `batch` is prepared, its leaves `[S, B, ...]`."""
    by_seed = [jax.tree.map(lambda leaf, i=seed: leaf[i], batch) for seed in range(self._seeds)]
    parts = {(device, seed): jax.device_put(part, device)
             for device in self._devices for seed, part in enumerate(by_seed)}
    for run in self._runs:
      run.state, run.loss = self._step(run.state, run.filters, parts[run.device, run.seed])

  def wait(self) -> None:
    """Blocks until the updates so far are done."""
    jax.block_until_ready([run.loss for run in self._runs])

  def evaluate(self, batch: dict[str, Any]) -> None:
    """Scores one prepared evaluation batch."""
    parts = {device: jax.device_put(batch, device) for device in self._devices}
    for run in self._runs:
      run.sums = run.sums + self._eval(run.state, run.filters, parts[run.device])

  def variables(self) -> dict[str, Any]:
    """Returns the trained variables, every leaf with leading axes `[count, S]`."""
    trained = stack([run.state.variables() for run in self._runs])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, self._seeds, *leaf.shape[1:]), trained)

  def losses(self) -> Float[np.ndarray, 'seeds count']:
    """Returns the loss of every run in its last update."""
    return np.array([float(run.loss) for run in self._runs]).reshape(-1, self._seeds).T

  def score(self) -> Float[np.ndarray, 'seeds count']:
    """Returns the task's best metric of every run over the batches so far."""
    sums = np.array([np.asarray(run.sums, np.float64) for run in self._runs])
    return (sums[:, 0] / sums[:, 1]).reshape(-1, self._seeds).T


Runner = RunTogether | RunInTurn


def make_runner(tuning: FineTuning, states: TrainState, filters: Any, count: int) -> Runner:
  """Creates what trains and evaluates `count` candidates, as `tuning.batching` says.

  Args:
    tuning: the fine-tuning of one candidate.
    states: of all seeds, with a leading axis `[S]`.
    filters: the collection 'dct' of all candidates, with a leading axis `[count]`.
    count: number of candidates.
  """
  batching = tuning.batching
  if batching == 'auto':
    batching = 'loop' if tuning.mesh.devices[0].platform == 'cpu' else 'vmap'
  return {'vmap': RunTogether, 'loop': RunInTurn}[batching](tuning, states, filters, count)
