"""Statistics, a gated training, its heat map, the selection and a static training, end to end."""
import json

import numpy as np
import pytest
from PIL import Image

from fcajax.cli import main as cli
from fcajax.configs import imagenette_dct
from fcajax.ops.block_dct import block_idct
from fcajax.selection.coefficients import coefficient_subset

INFORMATIVE = 19  # luma coefficient (2, 3): its sign is what tells the classes apart


def _image(label, rng):
  """32 x 32 RGB whose 8 x 8 blocks carry class-dependent sign of one coefficient alone."""
  coefficients = rng.normal(0, 12, (1, 4, 4, 64))
  coefficients[..., INFORMATIVE] += 120 * label - 60
  grey = np.asarray(block_idct(coefficients))[0]
  return np.clip(np.round(grey + rng.normal(0, 20, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('gratings')
  rng = np.random.default_rng(0)
  for split, count in (('train', 64), ('validation', 16)):
    for label in range(2):
      directory = root / split / f'class{label}'
      directory.mkdir(parents=True)
      for i in range(count):
        Image.fromarray(_image(label, rng)).save(directory / f'{i}.png')
  return root


def _config(variant, folder, **data):
  config = imagenette_dct.get_config(variant)
  config.num_epochs = 0.0
  config.num_steps = 80
  config.batch_size = config.eval_batch_size = 32
  config.log_every_steps = 40
  config.eval_every_epochs = 100.0
  config.checkpoint.every_epochs = 100.0
  config.optimizer.learning_rate = 0.1
  config.optimizer.warmup_epochs = 0.0
  config.model.update({'stage_sizes': (1,), 'stage_strides': (1,), 'width': 8})
  config.data.update({'source': 'folder', 'root': str(folder), 'image_size': 32, 'resize_size': 32,
                      'augment': False, 'chroma': 'half', **data})
  return config


def _train(config, workdir):
  from fcajax import input_pipeline
  from fcajax.train.loop import train
  data = input_pipeline.create(config.data, batch_size=config.batch_size,
                               eval_batch_size=config.eval_batch_size, seed=config.seed)
  return train(config, workdir, data)


def _run(*words):
  assert cli.main([str(word) for word in words]) == 0


def test_from_gated_training_to_a_static_network(folder, tmp_path):
  from fcajax.inference.load import load_model
  from fcajax.input_pipeline.tools import statistics

  # Every coefficient of Y, and the DC of Cb and Cr: the images have no other colour.
  coefficients = 'y:' + ','.join(map(str, range(64))) + ';cb:0;cr:0'
  file = tmp_path / 'statistics.json'
  config = _config('gated', folder, statistics=str(file), coefficients=coefficients)
  statistics.compute(config.data, file, progress=lambda *_: None)
  config.model.gate_penalty = 0.3
  gated = tmp_path / 'gated'
  assert _train(config, gated)['accuracy'] > 0.9

  heat_map = json.loads((gated / 'gate_heat_map.json').read_text())  # of the evaluation images
  out = tmp_path / 'again.png'
  _run('plot', 'gate', gated, '--images', folder / 'validation', '--out', out)
  again = json.loads(out.with_suffix('.json').read_text())
  np.testing.assert_allclose(again['open_fraction'], heat_map['open_fraction'], atol=1e-5)
  assert heat_map['images'] == 32 and len(heat_map['open_fraction']) == 66
  assert out.stat().st_size > 5000 and (gated / 'gate_heat_map.png').stat().st_size > 5000
  # The gate has shut what says nothing and kept what tells the classes apart.
  assert np.argmax(heat_map['open_fraction']) == INFORMATIVE
  assert heat_map['open_at_evaluation'][INFORMATIVE] == 1
  assert np.mean(heat_map['open_at_evaluation']) < 0.2

  _run('select', gated, '--count', 4)
  subset = coefficient_subset(str(gated / '4D.json'))
  assert len(subset) == 4 and INFORMATIVE in subset.y

  config = _config('static', folder, statistics=str(file), coefficients=str(gated / '4D.json'))
  assert _train(config, tmp_path / 'static')['accuracy'] > 0.9
  # What is stored needs no file: the network opens anywhere.
  model, _, metadata = load_model(tmp_path / 'static')
  assert model.coefficients == metadata['preprocessing']['coefficients'] == subset.spec
