"""Effective receptive fields: their definition, their reach, the command and its picture."""
import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from fcajax.analysis import receptive_field
from fcajax.cli import main as cli
from fcajax.inference import open_model as loading
from fcajax.layers.conv import Conv
from fcajax.layers.fourier.ffc import FastFourierConv2D
from fcajax.preprocessing.spec import Preprocessing


class Net(nn.Module):
  """Two layers of kernel 3, the second of stride 2, on RGB."""
  layer: type

  @nn.compact
  def __call__(self, x, train=False, capture_features=False):
    options = {} if self.layer is Conv else {'train': train}
    first = self.layer(4, 3, name='first', **options)(x)
    last = self.layer(4, 3, strides=2, name='last', **options)(first)
    features = {'stem': first, 'last': last, 'pre_logits': last.mean((1, 2))}
    return (last, features) if capture_features else last


def loaded(layer, size=(16, 16)):
  model = Net(layer)
  variables = jax.jit(model.init)(jax.random.key(0, impl='unsafe_rbg'), np.zeros((1, *size, 3)))
  return loading.Loaded(model, 'net', variables, Preprocessing(size))


def measure(network, images, *arguments, **options):
  return receptive_field.effective_receptive_field(
      network.model, network.variables, images, network.input_transform(), *arguments, **options)


@pytest.mark.parametrize('layer, reach', [(Conv, 5), (FastFourierConv2D, 16)])
def test_the_field_reaches_as_far_as_the_layers(layer, reach):
  network = loaded(layer)
  images = receptive_field.noise(network.preprocessing.shape)[:5]
  field = measure(network, images)
  assert field.shares.shape == (16, 16) and field.centre == (8, 8)
  np.testing.assert_allclose(field.shares.sum(), 1)
  within = np.zeros((16, 16), bool)
  within[8 - reach // 2:9 + reach // 2, 8 - reach // 2:9 + reach // 2] = True
  assert (field.shares[within] > 0).all() and (field.shares[~within] == 0).all()
  # A last batch that is not full counts its own images alone.
  again = measure(network, images, batch_size=5)
  np.testing.assert_allclose(field.shares, again.shares, rtol=1e-3)


def test_a_feature_can_be_chosen():
  network = loaded(Conv, (12, 9))
  images = receptive_field.noise(network.preprocessing.shape)[:1]
  field = measure(network, images, 'stem', 1)
  assert field.centre == (6, 4) and (field.shares > 0).sum() == 9
  with pytest.raises(ValueError, match="no feature map 'stage9'; it has stem, last"):
    measure(network, images, 'stage9', 1)


def test_squares_gather_the_shares_around_the_centre():
  shares = np.zeros((5, 7))
  shares[2, 3], shares[2, 4], shares[4, 3], shares[0, 6] = 0.25, 0.25, 0.25, 0.25
  field = receptive_field.Field(shares, (2, 3))
  np.testing.assert_allclose(receptive_field.share_within(field), [0.25, 0.5, 0.75, 1])
  assert receptive_field.half_side(field) == 3


def test_the_command_draws_the_fields_side_by_side(tmp_path, monkeypatch, capsys):
  networks = {'a': loaded(Conv), 'b': loaded(Conv, (24, 24))}
  monkeypatch.setattr(loading, 'load', lambda name, size, seed: networks[name])
  pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
  Image.fromarray(pixels).save(tmp_path / 'x.png')
  out = tmp_path / 'field.png'
  assert cli.main(['plot', 'receptive-field', 'a', 'b', '--images', str(tmp_path / 'x.png'),
                   '--out', str(out)]) == 0
  assert 'net (random weights): half of the gradient lies within' in capsys.readouterr().out
  assert Image.open(out).size[0] > 1000
