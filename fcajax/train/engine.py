"""Model, task, optimiser and strategy joined into compiled programs."""
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fcajax.tasks import metrics
from fcajax.tasks.base import Batch, Rows, Task
from fcajax.train import train_state, train_step
from fcajax.train.parallel import ShardMap
from fcajax.train.train_state import TrainState

Sums = dict[str, Any]


class Engine:
  """The compiled programs of a run.

  Each program is compiled at its first call, once for every shape of a batch, so that
  `compile_seconds` is known apart from the work. States and sums that go in are donated: use what
  comes out.

  Args:
    model: a Linen module whose batch norms already have the strategy's axis.
    task: see `fcajax.tasks.base`.
    strategy: from `parallel.create`.
    optimizer: from `optimizer.make_optimizer`.
    schedule: from `optimizer.make_schedule`.
    total_steps: of the run.
    seed: of the initial parameters and of the steps' random numbers.
    ema_decay: 0 keeps no averaged parameters.
    freeze: as `train_step.make_train_step` takes it.
    accumulate_steps: as `train_step.make_train_step` takes it.
  """

  def __init__(self, model: Any, task: Task, strategy: ShardMap,
               optimizer: optax.GradientTransformation, schedule: Callable, *, total_steps: int,
               seed: int = 0, ema_decay: float = 0.0, freeze: str = '',
               accumulate_steps: int = 1):
    self.strategy = strategy
    self.schedule = schedule
    self.compile_seconds = 0.0

    inputs = jax.eval_shape(
        lambda batch: task.arguments(task.prepare(None, batch, False), False), task.sample_batch())

    def create():
      zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
      return train_state.create_state(
          model, optimizer, zeros, seed=seed, ema=bool(ema_decay), rng_streams=task.rng_streams)

    self._create = create
    self.state_shapes = jax.eval_shape(create)
    update = train_step.make_train_step(
        model, task, optimizer, schedule, total_steps=total_steps, ema_decay=ema_decay,
        accumulate_steps=accumulate_steps, freeze=freeze, axis_name=strategy.axis_name)
    evaluation = train_step.make_eval_step(model, task, axis_name=strategy.axis_name)

    def train(state, sums, batch):
      state, new = update(state, batch)
      # The next call donates the state and the sums, so waiting needs an output of its own.
      return (state, metrics.merge(sums, new)), state.step

    def evaluate(variables, sums, batch):
      new, rows = evaluation(variables, batch)
      return metrics.merge(sums, new), rows

    self._functions = {'train': strategy.train(train), 'evaluate': strategy.evaluate(evaluate)}
    self._compiled = {}

    loss = train_step.make_loss_function(
        model, task, total_steps=total_steps, freeze=freeze, axis_name=strategy.axis_name)

    def train_sums(state, batch):
      key = jax.random.wrap_key_data(state.rng)
      _, (_, sums) = loss(state.params, state.batch_stats, batch, key, state.step)
      return sums | train_step.step_sums(state.step, sums['loss'].total, jnp.zeros(()))

    self._sums_of = {
        'train': (train_sums, self.state_shapes),
        'evaluate': (lambda *inputs: evaluation(*inputs)[0], self.state_shapes.variables())}
    self._new_sums = {}

  def initialize(self) -> TrainState:
    """Returns a new state on the devices."""
    return self.strategy.initializer(self._create)()

  def _zero_sums(self, name: str, batch: Batch) -> Sums:
    if name not in self._new_sums:
      function, first = self._sums_of[name]
      shapes = _shapes(function, self.strategy.axis_name, first, self.strategy.share_shapes(batch))
      self._new_sums[name] = self.strategy.initializer(lambda: metrics.zeros(shapes))
    return self._new_sums[name]()

  def _run(self, name: str, first: Any, sums: Sums | None, batch: Batch) -> Any:
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch))
    compiled = self._compiled.get((name, shapes))
    if compiled is not None:
      return compiled(first, self._zero_sums(name, batch) if sums is None else sums, batch)
    start = time.perf_counter()
    arguments = (first, self._zero_sums(name, batch) if sums is None else sums, batch)
    function = self._functions[name]
    if self.strategy.ahead_of_time:
      function = function.lower(*arguments).compile()
      self.compile_seconds += time.perf_counter() - start
      result = function(*arguments)
    else:
      result = function(*arguments)
      # The call returns once its work is under way, so nearly all of its time is compilation.
      self.compile_seconds += time.perf_counter() - start
    self._compiled[name, shapes] = function
    return result

  def train(self, state: TrainState, sums: Sums | None, batch: Batch
            ) -> tuple[TrainState, Sums, jax.Array]:
    """Makes one update.

    Args:
      state: on the devices.
      sums: of the steps since they were last read; None starts new ones.
      batch: on the devices, of `strategy.place_batch`.

    Returns:
      (state, sums, step): the step is never donated, and ready when the update is done.
    """
    (state, sums), done = self._run('train', state, sums, batch)
    return state, sums, done

  def evaluate(self, variables: Any, sums: Sums | None, batch: Batch) -> tuple[Sums, Rows]:
    """Evaluates one batch; returns (sums, rows on the devices). None starts new sums."""
    return self._run('evaluate', variables, sums, batch)

  def fetch(self, sums: Sums | None) -> dict[str, Any]:
    """Waits for the devices and returns the metrics on the host, see `metrics.compute`."""
    return {} if sums is None else metrics.compute(self.strategy.to_host(sums))


def _shapes(function: Callable, axis_name: str | None, *arguments: Any) -> Any:
  """Returns the shapes of what a function returns that may use a mapped axis."""
  if axis_name is None:
    return jax.eval_shape(function, *arguments)
  # An axis of one device that maps none of the arguments: it only has to be known by name.
  mapped = jax.vmap(lambda _, inputs: function(*inputs), (0, None), axis_name=axis_name)
  shapes = jax.eval_shape(mapped, jax.ShapeDtypeStruct((1,), 'int32'), arguments)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes)
