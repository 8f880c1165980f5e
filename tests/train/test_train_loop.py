"""The loop on a tiny network: exact resume, bad losses, signals, what it leaves and refuses."""
import io
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from fcajax.errors import TrainingDiverged, UserError
from fcajax.train import loop
from fcajax.workdir import checkpoints as checkpoint
from fcajax.workdir import layout as workdir
from tests.helpers import tiny

STEPS = 6
make_config = tiny.make_config


class Trigger(io.StringIO):
  """Calls `action` when the loop prints `text`."""

  def __init__(self, text, action):
    super().__init__()
    self._text, self._action = text, action

  def write(self, text):
    if self._text in text:
      self._action()
    return super().write(text)


def augment(key, images):
  """A random brightness for each image."""
  shift = jax.random.randint(key, (images.shape[0], 1, 1, 1), 0, 20)
  return (images.astype(jnp.int32) + shift).clip(0, 255).astype(jnp.uint8)


def run(config, directory, *, data=None, stream=None, model=None, **options):
  """A run with everything that could break an exact resume: dropout, augmentation, EMA."""
  stream = stream or io.StringIO()
  data = data or tiny.TinyPipeline(augment=augment)
  summary = loop.train(
      config, directory, data, model=model or tiny.TinyNet(dropout=0.2), stream=stream, **options)
  return summary, stream.getvalue()


def final_state(directory):
  """(step, state, data position and history) of the newest checkpoint, as it lies on the disk."""
  folder = max((directory / 'checkpoints').glob('[0-9]*'), key=lambda path: int(path.name))
  handler = ocp.PyTreeCheckpointer()
  tree = handler.metadata(folder / 'state').item_metadata.tree
  arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
  state = handler.restore(
      folder / 'state', args=ocp.args.PyTreeRestore(item=tree, restore_args=arguments))
  return int(folder.name), state, json.loads((folder / 'run' / 'metadata').read_text())


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  """The runs of this file share their programs through JAX's cache on the disk."""
  settings = {
      'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('programs')),
      'jax_persistent_cache_min_compile_time_secs': 0,
      'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  for values in (settings, before):
    compilation_cache.reset_cache()
    for name, value in values.items():
      jax.config.update(name, value)
    if values is settings:
      yield
  compilation_cache.reset_cache()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished run: (directory, summary, what it printed)."""
  directory = tmp_path_factory.mktemp('finished')
  return directory, *run(make_config(), directory)


def rows(directory):
  return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


def test_what_a_run_leaves(finished):
  directory, summary, out = finished
  names = {path.name for path in directory.iterdir()}
  assert names == {
      '.lock', 'checkpoints', 'config.json', 'learning_curves.png', 'metadata.json',
      'metrics.jsonl', 'predictions.png', 'samples', 'summary.json', 'tensorboard'}
  assert json.loads((directory / 'summary.json').read_text()) == summary
  assert summary['finished'] and summary['step'] == summary['steps'] == STEPS
  assert summary['epochs'] == 2 and summary['best']['accuracy'] >= summary['accuracy']
  assert summary['compile_seconds'] > 0 and summary['images_per_second'] > 0
  assert 0 <= summary['data_wait_fraction'] <= 1
  assert summary['corrupt_files'] == {'count': 0, 'names': []}
  assert checkpoint.read_metadata(directory)['class_names'] == ['class 0', 'class 1', 'class 2']
  assert json.loads((directory / 'config.json').read_text())['optimizer']['learning_rate'] == 0.05
  assert [row['step'] for row in rows(directory) if row['split'] == 'train'] == [1, 2, 3, 4, 5, 6]
  assert [row['step'] for row in rows(directory) if row['split'] == 'evaluation'] == [3, 6]
  assert (directory / 'predictions.png').read_bytes()[:4] == b'\x89PNG'
  assert len(list(directory.glob('samples/class_1/*.png'))) > 1
  for word in ('step 6/6', 'epoch 2.0/2.0', 'loss', 'accuracy', 'images/s', 'left', 'data wait',
               'evaluation: ', 'top-5', 'compiled in', 'finished 6 steps'):
    assert word in out, word


def test_tensorboard_reads_the_events(finished):
  from tensorboard.backend.event_processing import event_accumulator
  events = event_accumulator.EventAccumulator(str(finished[0] / 'tensorboard'))
  events.Reload()
  assert [e.step for e in events.Scalars('evaluation/accuracy')] == [3, 6]
  assert events.Images('learning_curves')


def test_a_finished_run_says_so(finished):
  directory, summary, _ = finished
  again, out = run(make_config(), directory)
  assert again == summary and 'is finished: 6 steps' in out


def assert_same_as_uninterrupted(directory, finished):
  reference, summary, _ = finished
  step, values, history = final_state(directory)
  expected_step, expected, expected_history = final_state(reference)
  assert step == expected_step == STEPS and history == expected_history
  assert set(values) == {'step', 'params', 'batch_stats', 'opt_state', 'rng', 'ema'}
  jax.tree.map(np.testing.assert_array_equal, values, expected)
  ours = json.loads((directory / 'summary.json').read_text())
  for key in ('accuracy', 'loss', 'top5', 'best', 'step'):
    assert ours[key] == summary[key], key
  keys = ('step', 'split', 'loss', 'accuracy', 'gradient_norm', 'learning_rate')
  assert [[row.get(key) for key in keys] for row in rows(directory)] == [
      [row.get(key) for key in keys] for row in rows(reference)]


def test_stopped_after_three_steps_equals_uninterrupted(tmp_path, finished):
  """The loop prints its first evaluation after step 3."""
  stream = Trigger('evaluation: ', lambda: os.kill(os.getpid(), signal.SIGTERM))
  summary, out = run(make_config(), tmp_path, stream=stream)
  assert summary['stopped_by'] == signal.SIGTERM and not summary['finished']
  assert 'stopped by SIGTERM after step 3/6' in out
  assert final_state(tmp_path)[0] == 3
  _, out = run(make_config(), tmp_path)
  assert 'after step 3/6' in out
  assert_same_as_uninterrupted(tmp_path, finished)


def test_killed_at_step_five_continues_from_the_last_checkpoint(tmp_path, finished):
  def fail():
    raise RuntimeError('power cut')

  with pytest.raises(RuntimeError, match='power cut'):
    run(make_config(), tmp_path, stream=Trigger('step 5/6', fail))
  assert rows(tmp_path)[-1]['step'] == 5
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "epo')
  run(make_config(), tmp_path)
  assert_same_as_uninterrupted(tmp_path, finished)


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
  class Poisoned(tiny.TinyNet):
    """Its loss overflows once the head has learned for four steps."""

    @tiny.nn.compact
    def __call__(self, x, train=False, progress=0.0):
      logits = super().__call__(x, train)
      return jnp.where(jnp.asarray(progress) > 3.5 / STEPS, jnp.inf, 1.0) * logits

  config = make_config(**{'log_every_steps': 3, 'ema_decay': 0.0, 'checkpoint.every_steps': 3})
  with pytest.raises(TrainingDiverged, match=r'not finite at step 5 .*the checkpoint of step 3'):
    run(config, tmp_path, model=Poisoned())
  assert final_state(tmp_path)[0] == 3
  values = checkpoint.restore_variables(tmp_path, 'latest')
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(values))


def test_evaluation_counts_every_image_once(finished):
  """40 images in batches of 16: the accuracy is a multiple of 1/40."""
  directory, summary, _ = finished
  assert summary['evaluation_images'] == 40
  assert abs(summary['accuracy'] * 40 - round(summary['accuracy'] * 40)) < 1e-9
  variables = checkpoint.restore_variables(directory, 'latest')
  images, labels = tiny.make_images(40, seed=2)
  logits = tiny.TinyNet().apply(variables, tiny.normalize(jnp.asarray(images)))
  np.testing.assert_allclose(
      np.mean(np.argmax(logits, -1) == labels), summary['accuracy'], atol=1e-9)


def test_other_config_is_refused_with_the_differing_keys(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  with pytest.raises(UserError) as error:
    run(make_config(**{'optimizer.learning_rate': 0.1, 'seed': 3}), directory)
  assert 'optimizer.learning_rate: 0.05 there, 0.1 now' in str(error.value)
  assert 'seed: 0 there, 3 now' in str(error.value)
  assert '--resume_with_changes' in str(error.value)
  assert 'batch_size' not in str(error.value)


def test_resume_with_changes_goes_on(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  summary, out = run(
      make_config(num_steps=7), directory, resume_with_changes=True)
  assert 'num_steps: 6 there, 7 now' in out and 'after step 6/7' in out
  assert summary['step'] == 7 and summary['finished']


def test_checkpoint_of_another_model_is_refused(tmp_path, finished):
  directory = tmp_path / 'run'
  shutil.copytree(finished[0], directory)
  with pytest.raises(UserError, match=r'of another model or optimiser:\n(.*\n)*.*head/kernel'):
    run(make_config(num_steps=7), directory, model=tiny.TinyNet(width=16),
        resume_with_changes=True)
  assert 'is finished' in run(make_config(), directory)[1]


def test_init_from_another_run_replaces_the_head(tmp_path, finished):
  config = make_config(init_from=str(finished[0]), freeze='conv|norm')
  data = tiny.TinyPipeline(classes=5)
  _, out = run(config, tmp_path, data=data)
  assert f'weights from {finished[0]}; new: params/head/bias, params/head/kernel' in out
  old = checkpoint.restore_variables(finished[0])
  new = checkpoint.restore_variables(tmp_path)
  for collection, module in (('params', 'conv0'), ('params', 'norm0'), ('batch_stats', 'norm0')):
    jax.tree.map(np.testing.assert_array_equal, old[collection][module], new[collection][module])
  assert new['params']['head']['kernel'].shape == (8, 5)
  with pytest.raises(UserError, match=r'conv0/kernel is \(3, 3, 3, 8\) there and'):
    run(config, tmp_path / 'wide', data=data, model=tiny.TinyNet(width=16))


@pytest.mark.parametrize('changes, message', [
    ({'batch_size': 20}, 'batch_size=20 does not divide over 8 devices; use 16 or 24'),
    ({'eval_batch_size': 12}, 'eval_batch_size=12 does not divide'),
    ({'batch_size': 80}, 'more than the 72 training images'),
    ({'optimizer.warmup_epochs': 2.0}, 'shorten the warm-up or train longer'),
])
def test_errors_before_the_work(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    run(make_config(**changes), tmp_path / 'run')
  assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_a_directory_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'cannot write to the work directory .*--workdir'):
    run(make_config(), tmp_path / 'file' / 'run')


def test_a_full_disk(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(workdir.shutil, 'disk_usage', lambda _: usage._replace(free=5000))
  with pytest.raises(UserError, match='0 MB free, but 2 checkpoints take'):
    run(make_config(), tmp_path)


def test_a_write_that_fails_names_the_reason(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(workdir.os, 'fsync', full)
  with pytest.raises(UserError, match='No space left on device'):
    run(make_config(), tmp_path)
  assert not list(tmp_path.iterdir())
