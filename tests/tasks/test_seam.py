"""What a detector will ask of the trainer: its own terms, arguments, streams and batch shapes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fcajax import tasks
from fcajax.tasks import metrics
from fcajax.train import engine, optimizer, parallel
from tests.helpers import tiny

BATCH = 16


class Points(nn.Module):
  """Predicts a point for each image; in training it is shown a noisy form of the true ones."""

  @nn.compact
  def __call__(self, images, points=None, train=False):
    x = images.mean(axis=(1, 2))
    if train:
      noise = jax.random.normal(self.make_rng('sampling'), points.shape)
      self.sow('losses', 'noise', 0.0 * noise.sum())
    return {'first': nn.Dense(2, name='first')(x), 'second': nn.Dense(2, name='second')(x)}


class PointTask(tasks.Task):
  """Up to three points an image; `valid` marks those that are there, so weights depend on data."""

  name = 'points'
  best = tasks.Metric('error', higher_is_better=False)
  rng_streams = ('sampling',)

  def arguments(self, batch, train):
    return (batch['image'], batch['targets']['points']) if train else (batch['image'],)

  def model_arguments(self):
    return {}

  def loss(self, outputs, batch):
    valid = batch['targets']['valid']
    wrong = jnp.abs(outputs['first'][:, None] - batch['targets']['points']).sum(-1)
    return {
        'point_loss': tasks.Mean(jnp.sum(wrong * valid), valid.sum()),
        'size_loss': jnp.square(outputs['second']).mean(-1),
    }, {'valid': valid.sum(-1)}

  def evaluate(self, outputs, batch):
    wrong = jnp.abs(outputs['first'][:, None] - batch['targets']['points']).sum(-1)
    total = jnp.sum(wrong * batch['targets']['valid'] * batch['mask'][:, None])
    sums = tasks.averages(error=metrics.Mean(total, batch['targets']['valid'].sum()))
    return sums | {'images': batch['mask'].sum()}, {'point': outputs['first'], 'id': batch['id']}


def make_batch(size=8, seed=0):
  random = np.random.default_rng(seed)
  # Some devices have many points and some have none.
  count = np.repeat([0, 3, 1, 0, 2, 0, 0, 3], 2)
  return {
      'image': random.integers(0, 255, (BATCH, size, size, 3)).astype(np.uint8),
      'targets': {
          'points': random.normal(size=(BATCH, 3, 2)).astype(np.float32),
          'valid': (np.arange(3) < count[:, None]).astype(np.float32)},
      'id': np.arange(BATCH, dtype=np.int32), 'mask': np.ones(BATCH, np.float32)}


def train(strategy):
  config = tiny.make_config(**{'optimizer.schedule': 'constant'})
  task = PointTask(config, tiny.TinyPipeline())
  programs = engine.Engine(
      Points(), task, strategy, optimizer.make_optimizer(config.optimizer), lambda step: 0.1,
      total_steps=3)
  state, sums = programs.initialize(), None
  for size in (8, 16, 8):
    state, sums, _ = programs.train(state, sums, strategy.place_batch(make_batch(size)))
  trained = jax.device_get(strategy.state_to_save(state)).params
  measured = programs.fetch(sums)
  evaluated, rows = programs.evaluate(
      state.variables(), None, strategy.place_batch(make_batch()))
  return trained, measured, programs.fetch(evaluated), strategy.local_rows(rows)


@pytest.fixture(scope='module')
def alone():
  return train(parallel.create('shard_map', devices=jax.devices()[:1]))


@pytest.mark.parametrize('name', ['shard_map', 'jit', 'pmap'])
def test_weighted_terms_do_not_depend_on_the_number_of_devices(alone, name):
  result = train(parallel.create(name))
  assert set(result[1]) == {
      'loss', 'point_loss', 'size_loss', 'valid', 'auxiliary_loss', 'gradient_norm', 'not_finite'}
  assert result[1].pop('not_finite') is None
  alone = (alone[0], {k: v for k, v in alone[1].items() if k != 'not_finite'}, *alone[2:])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), result, alone)
  np.testing.assert_array_equal(result[3]['id'], np.arange(BATCH))
  assert result[2]['images'] == BATCH


def test_the_loss_is_the_sum_of_its_terms(alone):
  measured = alone[1]
  assert measured['loss'] == pytest.approx(measured['point_loss'] + measured['size_loss'], rel=1e-5)


def test_a_lower_error_is_better():
  metric = PointTask.best
  assert metric.score({'error': 0.1}) > metric.score({'error': 0.2})
  assert metric.score({'error': float('nan')}) == metric.score({}) == -np.inf
