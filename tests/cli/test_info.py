"""`fcajax info`: its two forms, its inputs, and what it refuses."""
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from fcajax.analysis import cost
from fcajax.cli import main as cli
from fcajax.cli import settings
from fcajax.inference import open_model as loading
from fcajax.models.registry import BACKBONES, create_model
from fcajax.preprocessing.spec import Preprocessing
from fcajax.weights import save_safetensors


def info(capsys, *arguments):
  status = cli.main(['info', *arguments])
  captured = capsys.readouterr()
  return status, captured.out, captured.err


def test_json_holds_totals_and_stages(capsys, facts):
  status, out, _ = info(capsys, 'fca_resnet34', '--json')
  content = json.loads(out)
  assert status == 0
  assert content['parameters'] == facts['fcanet']['parameters']['fcanet34']
  assert content['macs'] == facts['fcanet']['macs_224']['conv_and_linear']['34']
  assert content['dct_macs'] == facts['fcanet']['macs_224']['dct']['34']
  assert content['input_shape'] == [224, 224, 3]
  assert list(content['stages']) == ['stem', 'stage1', 'stage2', 'stage3', 'stage4', 'head']
  assert content['stages']['stage2']['output_shape'] == [28, 28, 128]
  for key in ('parameters', 'macs', 'dct_macs', 'fourier_macs', 'activations'):
    assert content[key] == sum(stage[key] for stage in content['stages'].values())


def test_the_table_leaves_out_columns_of_zeros(capsys):
  _, out, _ = info(capsys, 'resnet20', '--num-classes', '10')
  lines = out.splitlines()
  assert lines[0] == ('resnet20, input 32 x 32 x 3: 0.27 M parameters, 0.041 G multiply-adds an '
                      'image')
  assert lines[2].split() == ['stage', 'output', 'parameters', 'MACs', 'activations']
  assert lines[-1].split()[:2] == ['total', '272,474']
  assert lines[-2].split()[:2] == ['head', '10']


def test_sizes_and_fields(capsys):
  rectangle = json.loads(info(capsys, 'fca_resnet20', '--image-size', '32', '48', '--json')[1])
  assert rectangle['stages']['stage1']['output_shape'] == [32, 48, 16]
  narrow = json.loads(info(capsys, 'fca_resnet20', '--set', 'width=32', '--set',
                           'frequencies=[(0, 0), (0, 1)]', '--json')[1])
  assert narrow['stages']['stage1']['output_shape'] == [32, 32, 32]
  coefficients = json.loads(info(capsys, 'dct_resnet18', '--json')[1])
  assert coefficients['input_shape'] == [56, 56, 24]
  assert coefficients['host_bytes'] == {
      'rgb': 602_112, '420': 301_056, 'int16': 150_528, 'int8': 75_264}
  assert '301,056 as 4:2:0 planes' in info(capsys, 'dct_resnet18')[1]
  assert rectangle['host_bytes'] == {'rgb': 32 * 48 * 3}
  given = json.loads(info(capsys, 'dct_resnet18', '--input-shape', '28', '28', '24', '--json')[1])
  assert given['macs'] < coefficients['macs'] / 3


@pytest.mark.parametrize('arguments, message', [
    (['fca_resnet5'], 'did you mean'),
    (['dct_resnet18', '--image-size', '100'], 'multiples of 8, such as 104'),
    (['resnet18', '--set', 'width'], 'KEY=VALUE'),
    (['resnet18', '--set', 'widht=32'], "did you mean 'width'"),
    (['fca_resnet20', '--image-size', '16'], 'at 4 x 4'),
    (['fca_resnet18', '--set', 'frequencies=nowhere.json'], 'cannot read the frequency file'),
    (['resnet20', '--set', 'num_classes=5'], 'no field to set; give it as --num-classes'),
    (['resnet20', '--set', 'name=resnet56'], 'no field to set; give it as MODEL'),
    (['resnet20', '--set', 'width=abc'], "with --set width='abc'; use values like the default "
                                         'width=16'),
    (['resnet20', '--set', 'activation=Dense'], "default activation='relu'"),
    (['resnet20', '--set', 'norm=foo'], 'default norm=None'),
    (['resnet20', '--set', 'stage_strides=(1,)'], 'stage_strides=(1,) needs one entry for each'),
    (['fca_resnet20', '--set', 'reduction=a'], 'default reduction=16'),
    (['fca_resnet20', '--set', 'dct_size=7.0'], 'default dct_size=None'),
    (['ffc_resnet20', '--set', 'ratio=half'], 'default ratio=0.5'),
])
def test_mistakes_are_one_line(capsys, arguments, message):
  status, out, err = info(capsys, *arguments)
  assert status == 2
  assert not out
  assert message in err
  assert err.count('\n') == 1


@pytest.mark.parametrize('words, message', [
    (['--num-classes', '0'], "--num-classes: '0' is no whole number from 1 on"),
    (['--num-classes', 'many'], "--num-classes: 'many' is no whole number from 1 on"),
    (['--image-size', '0'], "--image-size: '0' is no whole number from 1 on"),
    (['--image-size', '1', '2', '3'], '--image-size 1 2 3: give one side, or height and width'),
    (['--input-shape', '8', '0', '3'], "--input-shape: '0' is no whole number from 1 on"),
])
def test_mistakes_in_arguments_show_the_usage_of_the_command(capsys, words, message):
  with pytest.raises(SystemExit, match='2'):
    cli.main(['info', 'resnet20', *words])
  error = capsys.readouterr().err
  assert error.startswith('usage: fcajax info ') and message in error


def test_words_of_the_command_line_are_values(capsys):
  assert settings.parse_settings(
      ['a=false', 'b=TRUE', 'c=None', 'd=none', 'stem=none', 'e={1, 2}', 'f=[1, 2]']) == {
          'a': False, 'b': True, 'c': None, 'd': None, 'stem': 'none', 'e': '{1, 2}', 'f': [1, 2]}
  plain = info(capsys, 'ffc_resnet20', '--json')[1]
  assert info(capsys, 'ffc_resnet20', '--set', 'use_se=false', '--json')[1] == plain
  assert info(capsys, 'ffc_resnet20', '--set', 'use_se=true', '--json')[1] != plain


def test_only_networks_on_coefficients_are_sent_coefficients(capsys):
  words = ['resnet20', '--set', 'stem=none', '--image-size', '32', '--json']
  assert json.loads(info(capsys, *words)[1])['host_bytes'] == {'rgb': 3 * 32 * 32}
  assert 'bytes' not in info(capsys, *words[:-1])[1]
  given = info(capsys, *words, '--input-shape', '8', '8', '24')[1]
  assert json.loads(given)['host_bytes'] == {}


def test_settings_do_not_go_with_a_file(capsys, tmp_path):
  status, _, err = info(capsys, str(tmp_path), '--num-classes', '5')
  assert status == 2
  assert 'leave out --num-classes' in err


def test_a_weights_file_says_its_own_size(capsys, tmp_path):
  path = tmp_path / 'small.safetensors'
  model = create_model('fca_resnet20', 3, width=32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  save_safetensors(path, variables, {
      'model': {'name': 'fca_resnet20', 'num_classes': 3, 'overrides': {'width': 32}},
      'class_names': ['a', 'b', 'c'], 'preprocessing': Preprocessing(image_size=28).to_dict()})
  content = json.loads(info(capsys, str(path), '--json')[1])
  assert content['model'] == 'fca_resnet20'
  assert content['input_shape'] == [28, 28, 3]
  assert content['stages']['stage3']['output_shape'] == [7, 7, 128]
  assert content['stages']['head']['output_shape'] == [3]
  larger = json.loads(info(capsys, str(path), '--image-size', '56', '--json')[1])
  assert larger['macs'] > 3.9 * content['macs']


def test_the_page_of_models_is_what_the_counter_says():
  page = (pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'models.md').read_text()
  rows = {row[1]: row for row in (re.split(r'\s*\|\s*', line) for line in page.splitlines())
          if len(row) == 10}
  assert set(BACKBONES) == {name.strip('`') for name in rows if name.startswith('`')}
  for name in ('fca_resnet18', 'dct_mobilenet_v2', 'ffc_resnet20', 'se_resnet56'):
    model = create_model(name)
    total = cost.count(model, loading.input_shape(model, loading.image_size(None, model))).total
    row = rows[f'`{name}`']
    assert row[4] == f'{total.parameters:,}'
    assert row[5] == f'{total.macs / 1e9:.3f}'
    assert row[8] == f'{total.activations / 1e6:.2f}'
