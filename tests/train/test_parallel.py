"""shard_map, jit and pmap against one device, on eight forced host devices."""
import functools
import io
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.tasks.classification import Classification
from fcajax.train import engine, loop, optimizer, parallel
from fcajax.workdir import checkpoints as checkpoint
from tests.helpers import tiny

STEPS = 3
BATCH = 24


def train(strategy, *, sync=True, steps=STEPS, model=None, ema_decay=0.9, evaluate=True,
          label_smoothing=0.0, augment=None, **options):
  """Some steps and one evaluation: (state on the host, training metrics, evaluation metrics)."""
  settings = tiny.make_config(label_smoothing=label_smoothing)
  config = settings.optimizer
  data = tiny.TinyPipeline(BATCH, augment=augment)
  model = (model or tiny.TinyNet()).clone(axis_name=strategy.norm_axis if sync else None)
  schedule = optimizer.make_schedule(
      config, steps_per_epoch=3, total_steps=STEPS, batch_size=BATCH)
  programs = engine.Engine(
      model, Classification(settings, data), strategy, optimizer.make_optimizer(config), schedule,
      total_steps=STEPS, ema_decay=ema_decay, **options)
  state, sums = programs.initialize(), None
  iterator = data.train_iterator()
  for _ in range(steps):
    state, sums, done = programs.train(state, sums, strategy.place_batch(next(iterator)))
  assert np.all(np.asarray(done) == steps)
  trained = jax.device_get(strategy.state_to_save(state)), programs.fetch(sums)
  if not evaluate:
    return trained
  rows, evaluation = [], None
  for batch in data.evaluation_batches():
    evaluation, probabilities = programs.evaluate(
        state.variables(), evaluation, strategy.place_batch(batch))
    rows.append(strategy.local_rows(probabilities))
  return *trained, programs.fetch(evaluation), np.concatenate(rows)


@functools.cache
def single():
  return train(parallel.create('shard_map', devices=jax.devices()[:1]))


def assert_same(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), left, right)


@pytest.mark.parametrize('name, fsdp', [
    ('shard_map', False), ('jit', False), ('jit', True), ('pmap', False)])
def test_strategies_agree_with_one_device(name, fsdp, monkeypatch):
  monkeypatch.setattr(parallel, '_FSDP_MIN_SIZE', 16)
  assert len(jax.devices()) == 8
  result = train(parallel.create(name, fsdp=fsdp))
  assert result[0].step == STEPS
  for mine, expected in zip(result, single()):
    assert_same(mine, expected)


def test_fsdp_divides_the_state(monkeypatch):
  monkeypatch.setattr(parallel, '_FSDP_MIN_SIZE', 16)
  strategy = parallel.create('jit', fsdp=True)
  placed = strategy.place_state({'kernel': np.arange(3 * 3 * 8 * 16.).reshape(3, 3, 8, 16)})
  assert placed['kernel'].addressable_shards[0].data.shape == (3, 3, 8, 2)
  np.testing.assert_array_equal(
      jax.device_get(placed['kernel']).ravel(), np.arange(3 * 3 * 8 * 16))


def test_unsynchronised_batch_norm_uses_each_devices_own_images():
  run = functools.partial(train, steps=1, evaluate=False)
  synced = run(parallel.create('shard_map'))[0].batch_stats['norm0']
  mapped = run(parallel.create('shard_map'), sync=False)[0]
  local = mapped.batch_stats['norm0']
  # The mean of means is the mean; the mean of variances lacks the spread between devices.
  np.testing.assert_allclose(local['mean'], synced['mean'], atol=1e-6)
  assert np.all(local['var'] < synced['var']) and np.max(synced['var'] - local['var']) > 1e-3
  assert_same(mapped, run(parallel.create('pmap'), sync=False)[0])


def test_accumulation_gives_the_gradient_of_the_whole_batch():
  strategy = parallel.create('shard_map', devices=jax.devices()[:2])
  model = tiny.TinyNet(use_norm=False, auxiliary=0.1)
  whole, sliced = (
      train(strategy, model=model, accumulate_steps=k, label_smoothing=0.1, evaluate=False)
      for k in (1, 3))
  assert whole[1]['auxiliary_loss'] > 0
  assert_same(whole, sliced)


def test_devices_draw_their_own_random_numbers():
  def augment(key, images):
    return jnp.broadcast_to(jax.random.bits(key, (), jnp.uint8), images.shape)

  strategy = parallel.create('shard_map', devices=jax.devices()[:2])
  state, _ = train(strategy, augment=augment, steps=1, evaluate=False)
  # Within a device all images are the same constant, so the variance is that between devices.
  assert np.max(state.batch_stats['norm0']['var']) > 0.9 + 1e-4


@pytest.mark.parametrize('arguments, message', [
    ({'name': 'ddp'}, "parallelism='ddp'; use one of"),
    ({'name': 'jit', 'sync_batch_norm': False}, "use 'shard_map' or 'pmap'"),
    ({'name': 'pmap', 'fsdp': True}, "fsdp=True needs config.parallelism='jit'"),
])
def test_impossible_strategies(arguments, message):
  with pytest.raises(UserError, match=message):
    parallel.create(**arguments)


def test_batch_sizes_must_divide():
  parallel.check_batch_size('batch_size', 48, 8, 3)
  with pytest.raises(UserError, match='=30 does not divide over 8 devices; use 24 or 32'):
    parallel.check_batch_size('batch_size', 30, 8)
  with pytest.raises(UserError, match=r'in 3 slices each; use 24$'):
    parallel.check_batch_size('batch_size', 8, 8, 3)


def test_two_processes_train_as_one(tmp_path):
  """Two processes of two devices each, with a divided state and a stop after step 4."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  flags = ('--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 '
           '--xla_llvm_disable_expensive_passes=true')
  root = pathlib.Path(__file__).resolve().parents[2]
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'PYTHONPATH': str(root)}
  command = [sys.executable, str(root / 'tests' / 'helpers' / 'one_process.py')]
  processes = [
      subprocess.Popen([*command, str(rank), str(port), str(tmp_path)], env=environment, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
      for rank in range(2)]
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], '\n'.join(outputs)
  assert 'after step 4/6' in outputs[0] and 'step' not in outputs[1]
  loop.train(tiny.make_config(**{'optimizer.schedule': 'constant'}), tmp_path / 'alone',
             tiny.TinyPipeline(), model=tiny.TinyNet(), stream=io.StringIO())
  expected = checkpoint.restore_variables(tmp_path / 'alone', 'latest')
  assert_same(checkpoint.restore_variables(tmp_path / 'two', 'latest'), expected)
  two, alone = (
      json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('two', 'alone'))
  assert two['accuracy'] == alone['accuracy'] and two['devices'] == 4
