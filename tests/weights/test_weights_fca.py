"""The DCT filters that FcaNet checkpoints hold: told apart, taken over, and never ignored."""
import numpy as np
import pytest
from safetensors.numpy import save_file

from fcajax.cli import main as cli
from fcajax.inference.load import load_model
from fcajax.models.backbones.resnet import ResNet
from fcajax.ops.dct import multispectral_basis
from fcajax.selection.frequencies import frequency_indices
from fcajax.weights import from_torch
from fcajax.weights.torch import dct_filters
from tests.helpers.torch_names import torch_names

KEY = 'layer1.0.att.dct_layer.weight'
SHAPE = (1, 14, 14, 32)


def stored(frequencies, size=14, channels=32):
  basis = multispectral_basis(size, size, frequency_indices(frequencies), channels)
  return np.ascontiguousarray(basis.transpose(2, 0, 1))


def network(**options):
  return ResNet((1,), width=32, num_classes=2, block='basic', stem='none', attention='fca',
                stage_strides=(1,), attention_options=options)


@pytest.fixture(scope='module')
def state():
  return torch_names(network(), SHAPE)


@pytest.mark.parametrize('name', ['top1', 'top16', 'low16', 'low4', 'bot4', 'bot8'])
@pytest.mark.parametrize('size', [7, 28])
def test_the_published_sets_are_told_apart(name, size):
  assert dct_filters.frequencies_of({KEY: stored(name, size)}) == name


def test_other_sets():
  pairs = ((0, 0), (3, 6), (2, 1), (5, 5))
  assert dct_filters.frequencies_of({'a': stored(pairs, 7), 'b': stored(pairs, 14)}) == pairs
  assert dct_filters.frequencies_of({'a': stored('top4'), 'b': stored('low4')}) is None
  assert dct_filters.frequencies_of({'a': np.random.default_rng(0).random((32, 7, 7))}) is None
  assert dct_filters.frequencies_of({}) is None
  assert dct_filters.stored_filters({KEY: np.zeros((32, 7, 7))}) == {}


def test_the_reference_layers_hold_such_filters(data_dir):
  arrays = np.load(data_dir / 'fca.npz')
  for layer, name in (('low8_c32_7', 'low8'), ('bot4_c32_28', 'bot4')):
    filters = arrays[f'{layer}/weights/dct_layer.weight']
    assert dct_filters.frequencies_of({KEY: filters}) == name


def test_equal_filters_pass_also_rounded(state):
  rounded = stored('low16').astype(np.float16)
  from_torch({**state, KEY: rounded}, network(frequencies='low16'), SHAPE)


@pytest.mark.parametrize('filters, options, message', [
    (stored('low16'), {}, r"not those of the network's frequencies='top16'; use --set "
                          'frequencies=low16$'),
    (stored([(0, 0), (6, 6)]), {}, r"--set 'frequencies=\[\(0,0\),\(6,6\)\]'"),
    (np.random.default_rng(0).random((32, 14, 14)), {}, '--set learnable=True'),
    (stored('top16'), {'basis': 'random'}, "the network's basis='random'"),
    (stored('top16') / 14, {}, '--set normalization=mean'),
    (stored('top16'), {'normalization': 'mean'}, '--set normalization=ortho'),
    (2 * stored('top16'), {}, "are 2 times the network's"),
    (stored('top16', 7), {'dct_size': 14}, "of 7 x 7, the network's are 14 x 14; set dct_sizes"),
])
def test_other_filters_are_refused(state, filters, options, message):
  with pytest.raises(ValueError, match=message):
    from_torch({**state, KEY: filters}, network(**options), SHAPE)


def test_a_network_without_filters_is_refused(state):
  with pytest.raises(ValueError, match="set attention='fca'"):
    from_torch({**state, KEY: stored('top1')}, network().clone(
        attention='se', attention_options={}), SHAPE)


def test_the_stage_sets_the_size(state):
  model = network().clone(dct_sizes=(7,))
  from_torch({**state, KEY: stored('top16', 7)}, model, SHAPE)
  with pytest.raises(ValueError, match="14 x 14, the network's are 7 x 7"):
    from_torch({**state, KEY: stored('top16')}, model, SHAPE)


def test_convert_takes_the_frequencies_over(tmp_path, capsys):
  import fcajax
  model = fcajax.create_model('fca_resnet20', num_classes=2)
  state = torch_names(model) | {KEY: stored('low16', 28, 16)}
  save_file(state, tmp_path / 'in.safetensors')
  words = ['convert', str(tmp_path / 'in.safetensors'), str(tmp_path / 'out.safetensors'),
           '--model', 'fca_resnet20']
  assert cli.main(words) == 0
  assert "frequencies='low16'" in capsys.readouterr().out
  loaded, _, metadata = load_model(tmp_path / 'out.safetensors')
  assert metadata['model']['overrides'] == {'frequencies': 'low16'}
  assert frequency_indices(dict(loaded.attention_options)['frequencies'])[3] == (1, 1)
  assert cli.main([*words, '--set', 'frequencies=top16']) == 2
  assert 'use --set frequencies=low16' in capsys.readouterr().err
