"""The training step and the evaluation step: pure functions of (state, batch), for any task."""
import inspect
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from fcajax.tasks import metrics
from fcajax.tasks.base import Batch, Rows, Task
from fcajax.tasks.metrics import Mean
from fcajax.train import optimizer as optimizers
from fcajax.train.train_state import TrainState
from fcajax.typing import Array, Float

Sums = dict[str, Any]


def accepts_progress(model: Any) -> bool:
  """Returns True if the model's `__call__` takes `progress`, the fraction of training done."""
  return 'progress' in inspect.signature(type(model).__call__).parameters


def _inference_norms(frozen: frozenset[tuple[str, ...]]) -> Callable:
  """Makes the batch norms of `frozen` (module paths) use their running statistics.

  A layer whose parameters are all frozen would otherwise go on drifting through its statistics.
  """
  def interceptor(next_fun, args, kwargs, context):
    module = context.module
    if isinstance(module, nn.BatchNorm) and module.path in frozen:
      if 'train' in kwargs:
        kwargs = dict(kwargs, train=False)
      elif context.method_name == '__call__' and module.use_running_average is None:
        kwargs = dict(kwargs, use_running_average=True)
    return next_fun(*args, **kwargs)
  return interceptor


def _keep_frozen(new: Any, old: Any, frozen: frozenset[tuple[str, ...]]) -> Any:
  new, old = flax.traverse_util.flatten_dict(new), flax.traverse_util.flatten_dict(old)
  return flax.traverse_util.unflatten_dict(
      {path: old[path] if path[:-1] in frozen else value for path, value in new.items()})


def _total_loss(losses: Any, axis_name: str | None) -> tuple[Float[Array, ''], Any, Sums]:
  """Adds up the terms of `Task.loss`.

  Returns:
    (the scalar whose gradient, averaged over the devices, is that of the whole batch; what the
    log's 'loss' averages; the sums of the terms under their names).
  """
  if not isinstance(losses, dict):
    if not isinstance(losses, Mean):
      return losses.mean(), losses, {}
    losses = {'loss': losses}
  terms = [_term(value, axis_name) for value in losses.values()]
  total = sum(terms[1:], terms[0])
  # One at a time: a detector calls a term 'mask', which `averages` takes for that of the examples.
  logged = {name: metrics.averages(value=value)['value'] for name, value in losses.items()
            if name != 'loss'}
  return total, total, logged


def _term(value: Any, axis_name: str | None) -> Float[Array, '']:
  if not isinstance(value, Mean):
    return value.mean()
  weight = jax.lax.stop_gradient(value.weight).astype(jnp.float32)
  if axis_name is None:
    return value.total / jnp.maximum(weight, 1)
  # The caller averages over the devices, so the sum of the weights counts a device's share of it.
  return value.total / (
      jnp.maximum(jax.lax.psum(weight, axis_name), 1) / jax.lax.axis_size(axis_name))


def make_loss_function(model: Any, task: Task, *, total_steps: int, freeze: str = '',
                       axis_name: str | None = None) -> Callable:
  """Builds `loss(params, batch_stats, batch, key, step) -> (scalar, (batch_stats, sums))`.

  See `make_train_step` for the arguments.
  """
  takes_progress = accepts_progress(model)

  def loss_function(params, batch_stats, batch, key, step):
    own = key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    keys = dict(zip(
        ('augment', *task.rng_streams), jax.random.split(own, 1 + len(task.rng_streams))))
    keys |= {name: jax.random.fold_in(key, i) for i, name in enumerate(task.shared_rng_streams)}
    batch = task.prepare(keys['augment'], batch, True)
    arguments = {'progress': step.astype(jnp.float32) / total_steps} if takes_progress else {}
    with nn.intercept_methods(_inference_norms(optimizers.frozen_modules(params, freeze))):
      outputs, updates = model.apply(
          {'params': params, 'batch_stats': batch_stats}, *task.arguments(batch, True), train=True,
          mutable=['batch_stats', 'losses'], rngs={name: keys[name] for name in task.rng_streams},
          **arguments)
    losses, measured = task.loss(outputs, batch)
    sown = jax.tree.leaves(updates.get('losses', {}))
    auxiliary = sum((jnp.sum(value.astype(jnp.float32)) for value in sown), jnp.zeros(()))
    total, logged, terms = _total_loss(losses, axis_name)
    sums = metrics.averages(loss=logged + auxiliary, **measured) | terms
    sums['auxiliary_loss'] = (
        metrics.averages(value=auxiliary)['value'] if sown else metrics.Average.empty())
    # A frozen norm returns no update; a model without norms returns no collection.
    return total + auxiliary, (updates.get('batch_stats', batch_stats), sums)

  return loss_function


def make_train_step(model: Any, task: Task, optimizer: optax.GradientTransformation,
                    schedule: Callable, *, total_steps: int, ema_decay: float = 0.0,
                    accumulate_steps: int = 1, freeze: str = '', axis_name: str | None = None
                    ) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
  """Builds `train_step(state, batch) -> (state, sums)`.

  loss = the task's loss + the sum of every value that the model sows into 'losses'. The update is
  -schedule(step) times the optimiser's direction.

  Args:
    model: a Linen module, called `model(*task.arguments(batch, True), train=True)` (and with
      `progress=`, where it takes it).
    task: see `fcajax.tasks.base`.
    optimizer: from `optimizer.make_optimizer`.
    schedule: step -> learning rate.
    total_steps: of the run, for `progress`.
    ema_decay: d > 0 keeps ema = d ema + (1 - d) params, with d = min(d, (1 + t) / (10 + t)) so
      that the first steps are forgotten.
    accumulate_steps: k > 1 works through the batch in k slices and averages their gradients,
      which needs the memory of one slice. Batch statistics, and the weights of a `Mean` in the
      loss, are those of a slice.
    freeze: see `optimizer.make_optimizer`; the batch norms of frozen layers use their running
      statistics and leave them alone.
    axis_name: the mapped axis when the step runs on one device's share of the batch (shard_map
      with check_vma=False, or pmap), None when the arrays are global. Gradients are averaged
      over it, and so are the running statistics, which differ only where the batch norms are
      not synchronised.

  Returns:
    The step. Its sums are over all devices: averages of 'loss', of the task's metrics and terms of
    the loss, of 'gradient_norm' and, if the model sows any, of 'auxiliary_loss'; and 'not_finite'
    (`FirstNotFinite`).
  """
  gradient = jax.grad(
      make_loss_function(
          model, task, total_steps=total_steps, freeze=freeze, axis_name=axis_name), has_aux=True)

  def slices_gradient(params, batch_stats, batch, key, step):
    # Slice j takes examples j, j + k, ...: the split stays inside every device's share.
    def split(value):
      return jnp.moveaxis(value.reshape(-1, accumulate_steps, *value.shape[1:]), 1, 0)

    def body(carry, inputs):
      grads, batch_stats = carry
      part, index = inputs
      new, (batch_stats, sums) = gradient(
          params, batch_stats, part, jax.random.fold_in(key, index), step)
      return (jax.tree.map(jnp.add, grads, new), batch_stats), sums

    (grads, batch_stats), sums = jax.lax.scan(
        body, (jax.tree.map(jnp.zeros_like, params), batch_stats),
        (jax.tree.map(split, batch), jnp.arange(accumulate_steps)))
    grads = jax.tree.map(lambda grad: grad / accumulate_steps, grads)
    return grads, (batch_stats, {name: value.reduce() for name, value in sums.items()})

  def train_step(state, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    compute = gradient if accumulate_steps == 1 else slices_gradient
    grads, (batch_stats, sums) = compute(
        state.params, state.batch_stats, batch, key, state.step)
    if axis_name is not None:
      grads, batch_stats = jax.lax.pmean((grads, batch_stats), axis_name)
    if freeze:
      # The average over devices of equal numbers differs from them in the last bit.
      batch_stats = _keep_frozen(
          batch_stats, state.batch_stats, optimizers.frozen_modules(state.params, freeze))
    sums = metrics.reduce_devices(sums, axis_name)
    grads = optimizers.trainable(grads, freeze)
    norm = optax.tree.norm(grads)

    directions, opt_state = optimizer.update(grads, state.opt_state, state.params)
    rate = schedule(state.step)
    params = jax.tree.map(lambda p, d: p - (rate * d).astype(p.dtype), state.params, directions)
    ema = state.ema
    if ema is not None:
      decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
      # In this form an average of parameters that do not change is exactly these parameters, which
      # d ema + (1 - d) params, the form of `optax.incremental_update`, is only up to rounding.
      ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
    sums |= step_sums(state.step + 1, sums['loss'].total, norm)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)
    return state, sums

  return train_step


def step_sums(step: Any, loss: Float[Array, ''], norm: Float[Array, '']) -> Sums:
  """Returns the sums that every training step has besides those of its loss function."""
  return {
      **metrics.averages(gradient_norm=norm),
      'not_finite': metrics.FirstNotFinite.from_values(step, loss, norm)}


def make_eval_step(model: Any, task: Task, *, axis_name: str | None = None
                   ) -> Callable[[Any, Batch], tuple[Sums, Rows]]:
  """Builds `eval_step(variables, batch) -> (sums over all devices, rows)`; see `Task.evaluate`."""
  def eval_step(variables, batch):
    batch = task.prepare(None, batch, False)
    outputs = model.apply(variables, *task.arguments(batch, False), train=False)
    sums, rows = task.evaluate(outputs, batch)
    return metrics.reduce_devices(sums, axis_name), rows

  return eval_step
