"""A work directory that version 0.1 wrote opens and goes on."""
import functools
import io
import json
import pathlib
import shutil
import tarfile

import jax
import numpy as np
import pytest

from fcajax import input_pipeline, tasks
from fcajax.configs import quickstart
from fcajax.errors import UserError
from fcajax.train import loop, parallel
from fcajax.workdir import checkpoints, layout

ARCHIVE = pathlib.Path(__file__).resolve().parents[1] / 'golden' / 'workdir_v0_1.tar.gz'


@pytest.fixture
def stored(tmp_path):
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(tmp_path / 'stored', filter='data')
  return tmp_path / 'stored'


def config_of(directory):
  """The config that this version makes of the stored one's settings."""
  config = quickstart.get_config('smoke')
  settings = layout.flatten(json.loads((directory / 'config.json').read_text()))
  del settings['task']
  for key, value in settings.items():
    if value is not None:
      part, _, name = key.rpartition('.')
      parent = config[part] if part else config
      with parent.unlocked():
        parent[name] = tuple(value) if isinstance(value, list) else value
  return config


def train(config, directory):
  data = input_pipeline.create(
      config.data, batch_size=config.batch_size, eval_batch_size=config.eval_batch_size,
      seed=config.seed)
  stream = io.StringIO()
  return loop.train(config, directory, data, stream=stream), stream.getvalue()


def test_resuming_gives_what_version_0_1_gave(stored, monkeypatch):
  """It was trained on one device, and has checkpoints of the steps 3 and 6."""
  monkeypatch.setattr(
      parallel, 'create', functools.partial(parallel.create, devices=jax.devices()[:1]))
  expected = checkpoints.restore_variables(stored, 6)
  shutil.rmtree(stored / 'checkpoints' / '6')
  shutil.copy(stored / 'summary.json', stored.parent)
  (stored / 'summary.json').unlink()
  summary, out = train(config_of(stored), stored)
  assert 'after step 3/6' in out and 'has changed' not in out
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      checkpoints.restore_variables(stored, 6), expected)
  before = json.loads((stored.parent / 'summary.json').read_text())
  assert summary['accuracy'] == before['accuracy']
  assert summary['best'] == pytest.approx(before['best'])
  assert checkpoints.read_metadata(stored)['task'] == 'classification'


def test_a_finished_run_says_so(stored):
  config = layout.plain(config_of(stored))
  assert layout.open_early(stored, config)['steps'] == 6
  assert tasks.of_metadata(checkpoints.read_metadata(stored)).name == 'classification'
  with pytest.raises(UserError, match='seed: 0 there, 1 now'):
    layout.open_early(stored, config | {'seed': 1})


@pytest.mark.parametrize('text', ['', '{"accuracy": 0.', '[]'])
def test_a_checkpoint_with_damaged_metrics_is_named(stored, text):
  folder = stored / 'checkpoints' / '3'
  (folder / 'metrics' / 'metrics').write_text(text)
  with pytest.raises(UserError, match=r'/3 has damaged metrics .* move that folder away'):
    checkpoints.restore_variables(stored)
  folder.rename(stored / 'damaged')
  assert checkpoints.restore_variables(stored)['params']


def test_its_best_checkpoint_is_found(stored):
  best, newest = (checkpoints.restore_variables(stored, step) for step in ('best', 6))
  jax.tree.map(np.testing.assert_array_equal, best, newest)
