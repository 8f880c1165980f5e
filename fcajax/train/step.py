"""The training step and the evaluation step: pure functions of (state, batch)."""
import inspect

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from fcajax.train import metrics
from fcajax.train import optimizer as optimizers

RNG_STREAMS = ('dropout', 'gate')


def _identity(images):
  return images


def accepts_progress(model):
  """Whether the model's `__call__` takes `progress`, the fraction of training done."""
  return 'progress' in inspect.signature(type(model).__call__).parameters


def _inference_norms(frozen):
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


def _keep_frozen(new, old, frozen):
  new, old = flax.traverse_util.flatten_dict(new), flax.traverse_util.flatten_dict(old)
  return flax.traverse_util.unflatten_dict(
      {path: old[path] if path[:-1] in frozen else value for path, value in new.items()})


def make_train_step(model, optimizer, schedule, *, total_steps, transform=_identity, augment=None,
                    label_smoothing=0.0, ema_decay=0.0, accumulate_steps=1, freeze='',
                    axis_name=None):
  """Builds `train_step(state, batch) -> (state, metrics)`.

  loss = mean cross entropy + the sum of every value that the model sows into 'losses'. The
  update is -schedule(step) times the optimiser's direction.

  Args:
    model: a Linen module, called `model(x, train=True)` (and `progress=`, where it takes it).
    optimizer: from `optimizer.make_optimizer`.
    schedule: step -> learning rate.
    total_steps: of the run, for `progress`.
    transform: pure function of uint8 images `[N, h, w, 3]` to the model's input.
    augment: None or a pure function (key, uint8 images) -> uint8 images.
    label_smoothing: see `metrics.cross_entropy`.
    ema_decay: d > 0 keeps ema = d ema + (1 - d) params, with d = min(d, (1 + t) / (10 + t)) so
      that the first steps are forgotten.
    accumulate_steps: k > 1 works through the batch in k slices and averages their gradients,
      which needs the memory of one slice; batch statistics are those of a slice.
    freeze: see `optimizer.make_optimizer`; the batch norms of frozen layers use their running
      statistics and leave them alone.
    axis_name: the mapped axis when the step runs on one device's share of the batch (shard_map
      with check_vma=False, or pmap), None when the arrays are global. Gradients are averaged
      over it, and so are the running statistics, which differ only where the batch norms are
      not synchronised.

  Returns:
    The step. Its metrics are over all devices: 'loss', 'accuracy', 'gradient_norm' and, where
    the model sows any, 'auxiliary_loss' (averages), and 'not_finite' (`FirstNotFinite`).
  """
  takes_progress = accepts_progress(model)

  def loss_function(params, batch_stats, batch, key, step):
    keys = dict(zip(('augment', *RNG_STREAMS), jax.random.split(key, 1 + len(RNG_STREAMS))))
    images = batch['image']
    if augment is not None:
      images = augment(keys['augment'], images)
    arguments = {'progress': step.astype(jnp.float32) / total_steps} if takes_progress else {}
    with nn.intercept_methods(_inference_norms(optimizers.frozen_modules(params, freeze))):
      logits, updates = model.apply(
          {'params': params, 'batch_stats': batch_stats}, transform(images), train=True,
          mutable=['batch_stats', 'losses'], rngs={name: keys[name] for name in RNG_STREAMS},
          **arguments)
    losses = metrics.cross_entropy(logits, batch['label'], label_smoothing)
    sown = jax.tree.leaves(updates.get('losses', {}))
    auxiliary = sum((jnp.sum(value.astype(jnp.float32)) for value in sown), jnp.zeros(()))
    measured = metrics.averages(
        loss=losses + auxiliary, accuracy=metrics.top_k_correct(logits, batch['label'], 1))
    measured['auxiliary_loss'] = (
        metrics.averages(value=auxiliary)['value'] if sown else metrics.Average.empty())
    # A frozen norm returns no update; a model without norms returns no collection.
    return losses.mean() + auxiliary, (updates.get('batch_stats', batch_stats), measured)

  gradient = jax.grad(loss_function, has_aux=True)

  def slices_gradient(params, batch_stats, batch, key, step):
    # Slice j takes images j, j + k, ...: the split stays inside every device's share.
    def split(value):
      return jnp.moveaxis(value.reshape(-1, accumulate_steps, *value.shape[1:]), 1, 0)

    def body(carry, inputs):
      grads, batch_stats = carry
      part, index = inputs
      new, (batch_stats, measured) = gradient(
          params, batch_stats, part, jax.random.fold_in(key, index), step)
      return (jax.tree.map(jnp.add, grads, new), batch_stats), measured

    (grads, batch_stats), measured = jax.lax.scan(
        body, (jax.tree.map(jnp.zeros_like, params), batch_stats),
        (jax.tree.map(split, batch), jnp.arange(accumulate_steps)))
    grads = jax.tree.map(lambda grad: grad / accumulate_steps, grads)
    return grads, (batch_stats, {name: value.reduce() for name, value in measured.items()})

  def train_step(state, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    if axis_name is not None:
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    compute = gradient if accumulate_steps == 1 else slices_gradient
    grads, (batch_stats, measured) = compute(
        state.params, state.batch_stats, batch, key, state.step)
    if axis_name is not None:
      grads, batch_stats = jax.lax.pmean((grads, batch_stats), axis_name)
    if freeze:
      # The average over devices of equal numbers differs from them in the last bit.
      batch_stats = _keep_frozen(
          batch_stats, state.batch_stats, optimizers.frozen_modules(state.params, freeze))
    measured = metrics.reduce_devices(measured, axis_name)
    grads = optimizers.trainable(grads, freeze)
    norm = optax.tree.norm(grads)

    directions, opt_state = optimizer.update(grads, state.opt_state, state.params)
    rate = schedule(state.step)
    params = jax.tree.map(lambda p, d: p - (rate * d).astype(p.dtype), state.params, directions)
    ema = state.ema
    if ema is not None:
      decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
      # In this form an average of parameters that do not change is exactly these parameters.
      ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
    measured |= metrics.averages(gradient_norm=norm)
    measured['not_finite'] = metrics.FirstNotFinite.from_values(
        state.step + 1, measured['loss'].total, norm)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)
    return state, measured

  return train_step


def make_eval_step(model, *, transform=_identity, axis_name=None):
  """Builds `eval_step(variables, batch) -> (metrics, probabilities)`.

  `batch` has 'image', 'label' and 'mask' `[N]` (0 = padding, which counts in no metric). Metrics:
  'loss' (cross entropy without smoothing or auxiliary losses), 'accuracy' and 'top5', over all
  devices. Probabilities are those of the step's own images, `[N, classes]`.
  """
  def eval_step(variables, batch):
    logits = model.apply(variables, transform(batch['image']), train=False).astype(jnp.float32)
    measured = metrics.averages(
        batch['mask'],
        loss=metrics.cross_entropy(logits, batch['label']),
        accuracy=metrics.top_k_correct(logits, batch['label'], 1),
        top5=metrics.top_k_correct(logits, batch['label'], 5))
    return metrics.reduce_devices(measured, axis_name), jax.nn.softmax(logits)

  return eval_step
