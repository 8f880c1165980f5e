"""What `fcajax convert` stores and refuses, and what `load_model` compares."""
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import fcajax
from fcajax.cli import main as cli
from fcajax.inference.load import load_model
from fcajax.models.backbones.resnet import ResNet
from fcajax.models.options import portable
from fcajax.weights import from_torch, save_safetensors
from fcajax.weights.torch.from_torch import clean_state, shared_prefix
from tests.helpers.torch_names import SMALL, describe, torch_names


@pytest.fixture(scope='module')
def small():
  """A network of four classes and a state dict that fits it."""
  model = fcajax.create_model(SMALL, num_classes=4)
  return model, torch_names(model)


def test_overrides_need_no_file(tmp_path):
  search, subset = str(tmp_path / 'search.json'), str(tmp_path / 'sub.json')
  pairs = [[0, 0], [1, 2]]
  with open(search, 'w') as file:
    json.dump({'grid': [7, 7], 'ranked': pairs, 'selected': pairs}, file)
  with open(subset, 'w') as file:
    json.dump({'y': [0, 1], 'cb': [0], 'cr': [0]}, file)
  assert portable({'frequencies': search, 'width': 3}) == {
      'frequencies': ((0, 0), (1, 2)), 'width': 3}
  assert portable({'attention_options': {'frequencies': search}}) == {
      'attention_options': {'frequencies': ((0, 0), (1, 2))}}
  assert portable({'coefficients': subset}) == {'coefficients': 'y:0,1;cb:0;cr:0'}
  assert portable({'coefficients': 192, 'frequencies': 'low8'}) == {
      'coefficients': '192', 'frequencies': 'low8'}

  save_file(torch_names(fcajax.create_model('fca_resnet20', 2)), tmp_path / 'in.safetensors')
  out = tmp_path / 'out.safetensors'
  assert cli.main(['convert', str(tmp_path / 'in.safetensors'), str(out), '--model',
                   'fca_resnet20', '--set', f'frequencies={search}', '--set',
                   'zero_init_last=FALSE']) == 0
  (tmp_path / 'search.json').unlink()
  model, _, metadata = load_model(out)
  assert metadata['model']['overrides'] == {'frequencies': pairs, 'zero_init_last': False}
  assert dict(model.attention_options)['frequencies'] == ((0, 0), (1, 2))


@pytest.mark.parametrize('arguments, message', [
    (['--set', 'num_classes=4'], 'give it as --num-classes'),
    (['--set', 'name=resnet56'], 'give it as MODEL'),
    (['--set', 'width=abc'], "cannot be built with --set width='abc'; use values like the "
                             'default width=16'),
])
def test_settings_are_refused(small, tmp_path, capsys, arguments, message):
  save_file(small[1], tmp_path / 'in.safetensors')
  assert cli.main(['convert', str(tmp_path / 'in.safetensors'), str(tmp_path / 'o.safetensors'),
                   '--model', SMALL, *arguments]) == 2
  assert message in capsys.readouterr().err


def test_a_missing_folder_is_named_before_anything_is_read(tmp_path, capsys):
  target = tmp_path / 'nodir' / 'x.safetensors'
  assert cli.main(['convert', 'absent.pth', str(target), '--model', SMALL]) == 2
  error = capsys.readouterr().err
  assert f"folder '{target.parent}' does not exist" in error


@pytest.mark.parametrize('prefix', [
    '_orig_mod.', 'model.', 'module._orig_mod.', 'model._orig_mod.', '_orig_mod.module.'])
def test_wrappers_put_a_prefix_before_every_name(small, prefix):
  model, state = small
  wrapped = {'state_dict': {prefix + key: value for key, value in state.items()}}
  want, got = from_torch(state, model), from_torch(wrapped, model)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_prefix_is_kept_where_it_says_something():
  assert shared_prefix(['model.fc.weight', 'fc.weight']) == ''
  assert shared_prefix(['model.0.1.conv1.weight', 'model.1.0.conv1.weight']) == ''
  assert shared_prefix(['module.model.0.0.conv1.weight', 'module.fc.weight']) == 'module.'
  assert list(clean_state({'model.0.0.conv1.weight': np.zeros(1)})) == ['model.0.0.conv1.weight']


def test_convert_says_which_prefix_it_left_out(small, tmp_path, capsys):
  wrapped = {f'module.{key}': value for key, value in small[1].items()}
  save_file(wrapped, tmp_path / 'in.safetensors')
  assert cli.main(['convert', str(tmp_path / 'in.safetensors'), str(tmp_path / 'o.safetensors'),
                   '--model', SMALL]) == 0
  assert "left out 'module.'" in capsys.readouterr().out


def test_no_advice_to_run_code(tmp_path, capsys):
  torch = pytest.importorskip('torch', reason='needs PyTorch: pip install -e .[torch]')
  (tmp_path / 'README.md').write_text('# A title\n\nand text.\n')
  torch.save({'state_dict': ResNet}, tmp_path / 'code.pth')
  for name, message in (('README.md', 'README.md'), ('code.pth', 'would run code')):
    assert cli.main(['convert', str(tmp_path / name), str(tmp_path / 'o.safetensors'),
                     '--model', SMALL]) == 2
    error = capsys.readouterr().err
    assert message in error and 'weights_only' not in error


@pytest.mark.parametrize('change, message', [
    (lambda d: d['model'].update(name='resnet56'), 'are not those of resnet56'),
    (lambda d: d['model'].update(num_classes=3) or d.update(class_names=list('abc')),
     r'params/head/bias: \[4\] for \[3\]'),
    (lambda d: d.update(class_names=['a', 'b']), 'names 2 classes for a network of 4'),
    (lambda d: d.update(class_names=None), 'names 0 classes for a network of 4'),
])
def test_weights_of_another_network_are_refused(small, tmp_path, change, message):
  model, state = small
  metadata = describe()
  change(metadata)
  path = tmp_path / 'w.safetensors'
  save_safetensors(path, from_torch(state, model), metadata)
  with pytest.raises(ValueError, match=message):
    load_model(path)


def test_the_preprocessing_says_what_the_network_reads(tmp_path):
  options = {'stem': 'none', 'stage_sizes': (1,), 'width': 8}
  model = fcajax.create_model(SMALL, 2, **options)
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2, 2, 6), np.float32))
  metadata = {'model': {'name': SMALL, 'num_classes': 2, 'overrides': options},
              'class_names': ['a', 'b'],
              'preprocessing': {'image_size': 16, 'representation': 'dct', 'coefficients': '6S'}}
  path = tmp_path / 'w.safetensors'
  save_safetensors(path, jax.device_get(variables), metadata)
  load_model(path)
  metadata['preprocessing'] = {'image_size': 16}
  save_safetensors(path, jax.device_get(variables), metadata)
  with pytest.raises(ValueError, match=r'stage1/block0/conv1/kernel: \[3, 3, 6, 8\] for '):
    load_model(path)
