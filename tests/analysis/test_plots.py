"""The pictures of `fcajax plot`: that they are drawn, and that the numbers in them are right."""
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from fcajax.analysis import attention_gates, curves, spectrum
from fcajax.cli import main as cli
from fcajax.inference import open_model as loading
from fcajax.inference.read_images import load_images
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('photos')
  random = np.random.default_rng(0)
  for name in ('cats/one', 'cats/two', 'dogs/one'):
    path = folder / f'{name}.png'
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), random.integers(0, 256, (40, 36, 3)).astype(np.uint8))
  return folder


@pytest.fixture(scope='module')
def loaded():
  model = create_model('fca_resnet20', 4, stage_sizes=(1, 2), width=8, stage_strides=(1, 2),
                       reduction=4, frequencies='low4')
  preprocessing = Preprocessing(image_size=14, resize_size=14)
  variables = jax.jit(lambda key, x: model.init(key, x, train=False))(
      jax.random.key(0), jnp.zeros((1, 14, 14, 3)))
  return loading.Loaded(model, 'small', variables, preprocessing, ['a', 'b', 'c', 'd'])


def size(path):
  image = cv2.imread(str(path))
  assert image.std() > 5
  return image.shape


def test_help_names_the_kinds(capsys):
  with pytest.raises(SystemExit, match='0'):
    cli.main(['plot', '--help'])
  out = capsys.readouterr().out
  for kind in ('filters', 'spectrum', 'attention', 'search'):
    assert f'\n    {kind} ' in out


def test_an_unknown_format_is_refused(tmp_path, capsys):
  assert cli.main(['plot', 'filters', '--out', str(tmp_path / 'x.txt')]) == 2
  assert 'must end in' in capsys.readouterr().err
  assert cli.main(['plot', 'filters', '--out', str(tmp_path / 'absent' / 'x.png')]) == 2
  assert 'cannot write' in capsys.readouterr().err


@pytest.mark.filterwarnings('error')
def test_curves_before_the_first_evaluation(tmp_path):
  row = {'step': 1, 'epoch': 0.1, 'split': 'train', 'loss': 2.0}
  curves.draw_runs({'run': [row]}, tmp_path / 'curves.png')
  curves.draw_runs({'run': []}, tmp_path / 'empty.png')
  assert size(tmp_path / 'curves.png') == size(tmp_path / 'empty.png')


def test_filters(tmp_path, capsys):
  out = tmp_path / 'filters.png'
  assert cli.main(['plot', 'filters', '--frequencies', 'low8', '--out', str(out)]) == 0
  height, width, _ = size(out)
  assert height > 900 and width > 900
  assert cli.main(['plot', 'filters', '--frequencies', '[(0,0),(1,1)]', '--out', str(out)]) == 0
  assert cli.main(['plot', 'filters', '--frequencies', '[(0,9)]', '--out', str(out)]) == 2
  assert '(0, 9) lies outside' in capsys.readouterr().err
  assert cli.main(['plot', 'filters', '--size', '6', '--out', str(out)]) == 2
  assert 'at 6 x 6' in capsys.readouterr().err
  assert cli.main(['plot', 'filters', '--frequencies', 'nowhere.json']) == 2
  assert 'cannot read the frequency file' in capsys.readouterr().err


def test_search_draws_the_published_accuracies(tmp_path, facts, capsys):
  path = tmp_path / 'search.json'
  accuracy = facts['fcanet']['single_frequency_top1_percent_7x7']
  order = facts['fcanet']['top_order']
  path.write_text(json.dumps({
      'grid': [7, 7], 'accuracy': accuracy, 'ranked': order, 'selected': order[:16]}))
  assert cli.main(['plot', 'search', str(tmp_path)]) == 0
  assert min(size(tmp_path / 'search.png')[:2]) > 900
  path.write_text(json.dumps({
      'grid': [7, 7], 'accuracy': accuracy[:3], 'ranked': order, 'selected': []}))
  assert cli.main(['plot', 'search', str(path)]) == 2
  assert 'accuracy has shape (3, 7), its grid is [7, 7]' in capsys.readouterr().err


def test_cosine_energy_is_that_of_scipy():
  features = np.random.default_rng(1).normal(1, 2, (3, 6, 9, 4)).astype(np.float32)
  energy = spectrum.cosine_energy(jnp.asarray(features))
  expected = (scipy.fft.dctn(features, axes=(1, 2), norm='ortho')**2).mean((0, 3))
  np.testing.assert_allclose(energy, expected, rtol=1e-4)
  assert energy.sum() == pytest.approx((features**2).mean() * 54, rel=1e-4)


def test_low_share_counts_the_corner():
  energy = np.zeros((14, 21))
  energy[1, 2], energy[2, 0] = 3, 1
  assert spectrum.low_share(energy / 4) == 0.75


def test_spectrum_of_every_stage(tmp_path, photos, loaded):
  files, images = load_images([str(photos)], loaded.preprocessing)
  spectra = spectrum.feature_spectra(
      loaded.model, loaded.variables, images, loaded.input_transform(), batch_size=2)
  assert list(spectra) == ['input', 'stem', 'stage1', 'stage2']
  assert spectra['stage2'].shape == (7, 7)
  for energy in spectra.values():
    assert energy.sum() == pytest.approx(1)
  spectrum.draw(spectra, tmp_path / 'spectrum.png', f'{loaded.name}, {len(files)} images')
  assert min(size(tmp_path / 'spectrum.png')[:2]) > 500


def test_gates_by_folder_prediction_and_image(tmp_path, photos, loaded):
  files, images = load_images([str(photos)], loaded.preprocessing)
  gates, predicted = attention_gates.gate_values(
      loaded.model, loaded.variables, images, loaded.input_transform(), batch_size=2)
  assert {layer: values.shape for layer, values in gates.items()} == {
      'stage1/block0/attention': (3, 8), 'stage2/block0/attention': (3, 16),
      'stage2/block1/attention': (3, 16)}
  assert all(((values > 0) & (values < 1)).all() for values in gates.values())
  assert list(attention_gates.choose_blocks(gates, -1)) == ['stage1/block0', 'stage2/block1']
  with pytest.raises(ValueError, match='stage1 has 1 blocks with attention'):
    attention_gates.choose_blocks(gates, 1)
  assert attention_gates.group_names(files, predicted, None) == ['cats', 'cats', 'dogs']
  assert attention_gates.group_names(files[:2], predicted[:2], None) == ['one', 'two']
  by_class = attention_gates.group_names(files, predicted, loaded.class_names, 'prediction')
  assert by_class == [loaded.class_names[i] for i in predicted]
  attention_gates.draw({'stage1/block0': gates['stage1/block0/attention']}, ['x', 'y', 'z'],
                      tmp_path / 'attention.png', 'small, 3 images')
  assert size(tmp_path / 'attention.png')[1] > 900


def test_a_network_without_gates_is_refused(loaded):
  class Plain:
    def apply(self, variables, x, train, mutable):
      return jnp.zeros((len(x), 2)), {}
  with pytest.raises(ValueError, match='the network has no attention layer with a gate'):
    attention_gates.gate_values(Plain(), {}, np.zeros((1, 14, 14, 3), np.uint8),
                                loaded.input_transform())


@pytest.mark.parametrize('words', [
    ['spectrum', 'm', '--images', 'x.png'], ['attention', 'm', '--images', 'x.png'],
    ['receptive-field', 'm'],
    ['gate', 'm']])
@pytest.mark.parametrize('size', ['0', '-1'])
def test_a_batch_holds_an_image(words, size, capsys):
  with pytest.raises(SystemExit, match='2'):
    cli.main(['plot', *words, '--batch-size', size])
  assert f"--batch-size: '{size}' is no whole number" in capsys.readouterr().err


def test_broken_images_of_a_folder_are_left_out(photos, tmp_path, loaded, capsys):
  good = (photos / 'cats' / 'one.png').read_bytes()
  (tmp_path / 'a.png').write_bytes(good)
  (tmp_path / 'b.png').write_bytes(good[:100])
  files, images = load_images([tmp_path], loaded.preprocessing)
  assert [file.name for file in files] == ['a.png'] and images.shape == (1, 14, 14, 3)
  assert 'b.png' in capsys.readouterr().err
  with pytest.raises(ValueError, match=r'b\.png'):
    load_images([tmp_path / 'b.png', tmp_path], loaded.preprocessing)


def test_missing_images_are_named(capsys, tmp_path, loaded, monkeypatch):
  monkeypatch.setattr(loading, 'load', lambda *args: loaded)
  for kind in ('spectrum', 'attention'):
    assert cli.main(['plot', kind, 'small', '--images', str(tmp_path / 'no.png')]) == 2
    assert 'no such image or folder' in capsys.readouterr().err


def test_sizes():
  coefficients = create_model('dct_resnet18')
  assert loading.image_size(None, coefficients) == (448, 448)
  assert loading.image_size(None, create_model('dct_mobilenet_v2')) == (896, 896)
  assert loading.image_size([32, 48], coefficients) == (32, 48)
  assert loading.input_shape(coefficients, (32, 48)) == (4, 6, 24)
  assert loading.preprocessing_for(coefficients, (32, 48)).representation == 'dct'
