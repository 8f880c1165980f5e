"""shard_map, jit and pmap against one device, on eight forced host devices."""
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import tiny

from fcajax.train import metrics, optimizer, parallel, state, step

STEPS = 3


def optimizer_config(**changes):
  values = dict(
      name='sgd', learning_rate=0.1, learning_rate_batch=0, momentum=0.9, nesterov=False,
      weight_decay=1e-3, decay_mask='all', clip_norm=0.0, accumulate_steps=1, schedule='cosine',
      warmup_epochs=0, boundaries=(), decay_factor=0.1, beta1=0.9, beta2=0.999)
  return ml_collections.ConfigDict(values | changes)


def run(strategy, *, sync=True, freeze='', config=None, model=None, **options):
  """Three steps and one evaluation; host state, training metrics, evaluation metrics."""
  config = config or optimizer_config()
  model = model or tiny.TinyNet()
  model = model.clone(axis_name=strategy.norm_axis if sync else None)
  data = tiny.TinyPipeline()
  tx = optimizer.make_optimizer(config, freeze)
  schedule = optimizer.make_schedule(
      config, steps_per_epoch=3, total_steps=STEPS, batch_size=24)
  train_step = step.make_train_step(
      model, tx, schedule, total_steps=STEPS, transform=tiny.normalize, freeze=freeze,
      axis_name=strategy.axis_name, **options)
  eval_step = step.make_eval_step(
      model, transform=tiny.normalize, axis_name=strategy.axis_name)
  current = strategy.initialize(lambda: state.create_state(
      model, tx, jnp.zeros((1, 8, 8, 3)), seed=0, ema=bool(options.get('ema_decay'))))

  def accumulated(current, totals, batch):
    current, measured = train_step(current, batch)
    return current, metrics.merge(totals, measured)

  iterator = data.train_iterator()
  batch = strategy.place_batch(next(iterator))
  kinds = metrics.empty_like(jax.eval_shape(
      step.make_train_step(model.clone(axis_name=None), tx, schedule, total_steps=STEPS,
                           transform=tiny.normalize, freeze=freeze, **options),
      jax.eval_shape(strategy.state_to_save, current) if False else
      jax.eval_shape(lambda: state.create_state(
          model, tx, jnp.zeros((1, 8, 8, 3)), seed=0, ema=bool(options.get('ema_decay')))),
      {'image': jax.ShapeDtypeStruct((24, 8, 8, 3), jnp.uint8),
       'label': jax.ShapeDtypeStruct((24,), jnp.int32)})[1])
  totals = strategy.place_state(kinds)
  compiled = strategy.train(accumulated).lower(current, totals, batch).compile()
  for _ in range(STEPS):
    current, totals = compiled(current, totals, batch)
    batch = strategy.place_batch(next(iterator))
  return jax.device_get(strategy.state_to_save(current)), metrics.compute(
      strategy.state_to_save(totals)), eval_step


def test_try():
  for name in parallel.NAMES:
    print(name, run(parallel.create(name))[1])
  print(run(parallel.create('shard_map', devices=jax.devices()[:1]))[1])
