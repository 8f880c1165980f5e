"""What every candidate of a frequency search goes through, and its compiled programs."""
import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu.metrics import Average
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from fcajax.errors import UserError
from fcajax.ops.convolution import force_lowering
from fcajax.search.settings import Batching
from fcajax.tasks.base import Task
from fcajax.train.train_state import TrainState
from fcajax.train.train_step import make_train_step

# The mesh axis along which candidates and seeds are spread over the devices.
RUN_AXIS = 'run'


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuning:
  """Fine-tuning of one candidate; candidates differ in their DCT filters alone.

  Attributes:
    model: a network with multi-spectral attention.
    task: what it is trained for; its best metric has to be an average over examples.
    optimizer: from `fcajax.train.optimizer.make_optimizer`.
    schedule: update number -> learning rate.
    steps: number of updates.
    accumulate_steps, freeze: as `fcajax.train.train_step.make_train_step` takes them.
    batching: 'vmap' maps one program over candidates and seeds; 'loop' runs them one after
      another in a program of one candidate, which keeps the plain convolutions that `vmap` turns
      into grouped ones; 'auto' is 'loop' on a CPU and 'vmap' elsewhere.
    devices: the candidates are spread over these; None takes all of JAX's.
  """
  model: nn.Module
  task: Task
  optimizer: optax.GradientTransformation
  schedule: Callable
  steps: int
  accumulate_steps: int = 1
  freeze: str = ''
  batching: Batching = 'auto'
  devices: Sequence[jax.Device] | None = None

  # The programs are compiled once for all groups of candidates.

  @functools.cached_property
  def prepare(self) -> Callable:
    """(keys `[S]`, step, batches of all seeds) -> prepared batches; seed s draws from key s."""
    def one(key, step, batch):
      key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
      return self.task.prepare(jax.random.fold_in(key, 0x5EA), batch, True)
    return jax.jit(jax.vmap(one, (0, None, 0)))

  @functools.cached_property
  def prepare_evaluation(self) -> Callable:
    """An evaluation batch -> the prepared batch."""
    return jax.jit(lambda batch: self.task.prepare(None, batch, False))

  @functools.cached_property
  def programs(self) -> tuple[Callable, Callable]:
    """(update, evaluation) of one run."""
    return (jax.jit(functools.partial(_train_one, self), donate_argnums=0),
            jax.jit(functools.partial(_evaluate_one, self)))

  @functools.cached_property
  def mapped_programs(self) -> tuple[Callable, Callable]:
    """(update, evaluation) of many runs, over the devices of `mesh`."""
    def train(state, filters, seed, batch):
      own = jax.tree.map(lambda leaf: leaf[seed], batch)
      with _lowering(self.mesh):
        return _train_one(self, state, filters, own)

    def evaluate(state, filters, batch):
      with _lowering(self.mesh):
        return _evaluate_one(self, state, filters, batch)

    def over(function, axes):
      # Runs are independent: no collective and no gradient crosses the axis, so that check_vma
      # has nothing to insert.
      return jax.shard_map(
          jax.vmap(function, axes), mesh=self.mesh, out_specs=P(RUN_AXIS), check_vma=False,
          in_specs=tuple(P() if axis is None else P(RUN_AXIS) for axis in axes))
    return (jax.jit(over(train, (0, 0, 0, None)), donate_argnums=0),
            jax.jit(over(evaluate, (0, 0, None))))

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """The devices, in one axis."""
    return jax.sharding.Mesh(np.array(self.devices or jax.devices()), (RUN_AXIS,))


class _WithFilters:
  """A network whose DCT filters are given; stands for the model in the train step."""

  def __init__(self, model, filters):
    self._model, self._filters = model, filters

  def apply(self, variables, *args, **kwargs):
    return self._model.apply({**variables, 'dct': self._filters}, *args, **kwargs)


def _prepared(task: Task) -> Task:
  """Returns the task for batches that `FineTuning.prepare` has prepared."""
  task = copy.copy(task)
  task.prepare = lambda key, batch, train: batch
  return task


def _train_one(tuning: FineTuning, state: TrainState, filters: Any, batch: Any):
  """Makes one update of one candidate and seed; returns (state, loss)."""
  step = make_train_step(
      _WithFilters(tuning.model, filters), _prepared(tuning.task), tuning.optimizer,
      tuning.schedule, total_steps=tuning.steps, accumulate_steps=tuning.accumulate_steps,
      freeze=tuning.freeze)
  state, measured = step(state, batch)
  return state, measured['loss'].total / measured['loss'].count


def _evaluate_one(tuning: FineTuning, state: TrainState, filters: Any, batch: Any):
  """Returns (sum, number of examples) of the best metric in one batch, for one candidate."""
  model, task = _WithFilters(tuning.model, filters), tuning.task
  outputs = model.apply(state.variables(), *task.arguments(batch, False), train=False)
  sums, _ = task.evaluate(outputs, batch)
  average = sums.get(task.best.name)
  if not isinstance(average, Average) or not task.best.higher_is_better:
    raise UserError(f'the frequency search cannot score the task {task.name!r}: its best metric '
                    f'{task.best.name!r} must be an average over examples, higher being better')
  return jnp.stack([average.total, average.count])


def _lowering(mesh):
  """Lowers convolutions to matrix products on a CPU, where `vmap`'s grouped ones are slow."""
  on_cpu = mesh.devices[0].platform == 'cpu'
  return force_lowering('matmul') if on_cpu else contextlib.nullcontext()
