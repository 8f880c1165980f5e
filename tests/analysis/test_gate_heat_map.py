"""Heat maps of a trained gate: counting, drawing, and selecting coefficients by them."""
import json

import jax
import numpy as np
import pytest
from PIL import Image

from fcajax.analysis import gate_heat_map as heat_maps
from fcajax.cli import main as cli
from fcajax.models.backbones.dct_resnet import DctResNet
from fcajax.models.registry import create_model
from fcajax.selection.coefficients import coefficient_subset
from fcajax.weights import save_safetensors


@pytest.fixture(scope='module')
def inputs():
  return np.random.default_rng(0).normal(size=(16, 4, 4, 6)).astype(np.float32)


def _tiny(gate=True):
  model = DctResNet((1,), block='basic', width=8, num_classes=3, coefficients='6S', gate=gate,
                    stage_strides=(1,))
  return model, model.init(jax.random.key(0), np.zeros((1, 4, 4, 6), np.float32))


def test_heat_map_counts_images_and_skips_padding(inputs, tmp_path):
  model, variables = _tiny()
  # Y 0 follows its mean, Cb 0 stays shut, the others stay open.
  gate = jax.tree.map(np.array, variables['params']['gate'])
  gate['mix'] = {'kernel': np.eye(6, dtype=np.float32), 'bias': np.zeros(6, np.float32)}
  gate['logits_kernel'] = np.zeros((6, 2), np.float32)
  gate['logits_kernel'][0] = 0, 1
  gate['logits_bias'] = np.array([[0, 0], [0, 1], [0, 1], [0, 1], [1, 0], [0, 1]], np.float32)
  variables = {**variables, 'params': {**variables['params'], 'gate': gate}}
  mask = np.ones(8, np.float32)
  mask[6:] = 0
  padded = inputs[8:].copy()
  padded[6:] = np.nan
  heat_map = heat_maps.gate_heat_map(
      model, variables, [{'image': inputs[:8]}, {'image': padded, 'mask': mask}])
  assert heat_map['images'] == 14
  positive = (inputs[:14, ..., 0].mean((1, 2)) > 0).mean()
  np.testing.assert_allclose(heat_map['open_at_evaluation'], [positive, 1, 1, 1, 0, 1])
  # The gate's batch norm is as initialised: off - on of Y 0 is -relu(mean) / sqrt(1 + epsilon).
  margin = np.maximum(inputs[:14, ..., 0].mean((1, 2)), 0) / np.sqrt(1 + 1e-5)
  on, off = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
  np.testing.assert_allclose(
      heat_map['open_fraction'], [(1 / (1 + np.exp(-margin))).mean(), on, on, on, off, on],
      rtol=1e-5)
  blocks = heat_maps.as_blocks(heat_map)
  assert blocks.shape == (3, 8, 8) and np.isfinite(blocks).sum() == 6 and blocks[1, 0, 0] < 0.5

  heat_maps.save_heat_map(heat_map, tmp_path / heat_maps.FILE_NAME)
  _plot_and_select(tmp_path, heat_map)


def _plot_and_select(folder, heat_map):
  assert cli.main(['plot', 'gate', str(folder)]) == 0
  assert (folder / 'gate_heat_map.png').stat().st_size > 5000
  assert cli.main(['select', str(folder), '--count', '4']) == 0
  content = json.loads((folder / '4D.json').read_text())
  assert content['images'] == heat_map['images']
  chosen = coefficient_subset(str(folder / '4D.json'))
  assert chosen.spec == 'y:1,8,9;cb:;cr:0'
  assert chosen == coefficient_subset(f'4D:{folder}/gate_heat_map.json')
  with pytest.raises(ValueError, match=r'must end in \.json'):
    cli.main(['--traceback', 'select', str(folder), '--count', '4', '--out', 'subset.txt'])


def test_heat_map_errors(inputs, tmp_path):
  model, variables = _tiny(gate=False)
  with pytest.raises(ValueError, match='has no gate; train one with gate=True'):
    heat_maps.gate_heat_map(model, variables, [{'image': inputs}])
  model, variables = _tiny()
  with pytest.raises(ValueError, match='no image to count gates over'):
    heat_maps.gate_heat_map(model, variables, [])
  with pytest.raises(ValueError, match='give the images to count over with --images'):
    cli.main(['--traceback', 'plot', 'gate', str(tmp_path)])
  with pytest.raises(ValueError, match=r'no image in .*looked for \.jpg'):
    cli.main(['--traceback', 'plot', 'gate', str(tmp_path), '--images', str(tmp_path)])


def test_plot_gate_takes_no_neighbours_heat_map(tmp_path, capsys):
  (tmp_path / 'gate_heat_map.json').write_text(json.dumps(
      {'coefficients': 'y:0,1;cb:0;cr:0', 'open_fraction': [0.9, 0.8, 0.7, 0.6]}))
  (tmp_path / 'plain.safetensors').write_bytes(b'weights')
  for name, message in (('plain.safetensors', 'with --images FOLDER'),
                        ('absent', "absent' does not exist"),
                        ('absent.json', "absent.json' does not exist")):
    assert cli.main(['plot', 'gate', str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
  assert not (tmp_path / 'gate_heat_map.png').exists()
  # The count of images is for the reader alone; a folder may leave its own heat map.
  for name in ('gate_heat_map.json', ''):
    assert cli.main(['plot', 'gate', str(tmp_path / name)]) == 0
    assert 'over an unknown number of images' in capsys.readouterr().out


def test_plot_gate_counts_the_images_that_can_be_read(tmp_path, capsys):
  options = {'stage_sizes': (1,), 'block': 'basic', 'width': 8, 'coefficients': '6S',
             'gate': True, 'stage_strides': (1,)}
  model = create_model('dct_resnet18', 2, **options)
  variables = jax.device_get(model.init(jax.random.key(0), np.zeros((1, 2, 2, 6), np.float32)))
  path, folder = tmp_path / 'w.safetensors', tmp_path / 'images'
  save_safetensors(path, variables, {
      'model': {'name': 'dct_resnet18', 'num_classes': 2, 'overrides': options},
      'class_names': ['a', 'b'],
      'preprocessing': {'image_size': 16, 'representation': 'dct', 'coefficients': '6S'}})
  folder.mkdir()
  for name in ('one.tif', 'two.webp', 'three.png'):
    Image.new('RGB', (20, 20), 'teal').save(folder / name)
  for name in ('broken.jpg', '._one.jpg'):
    (folder / name).write_text('no image')
  assert cli.main(['plot', 'gate', str(path), '--images', str(folder), '--batch-size', '2']) == 0
  streams = capsys.readouterr()
  assert 'over 3 images' in streams.out
  assert 'broken.jpg' in streams.err and '._one' not in streams.err


def test_select_refuses_weights(tmp_path, capsys):
  (tmp_path / 'w.safetensors').write_bytes(b'\xff\xfe')
  assert cli.main(['select', str(tmp_path / 'w.safetensors')]) == 2
  assert 'fcajax plot gate' in capsys.readouterr().err
