"""SimpleBaseline's weights under the published names and under mmpose's."""
import jax
import numpy as np
import pytest

from fcajax.models.registry import create_model
from fcajax.ops.target import target
from fcajax.ops.transposed_convolution import double
from fcajax.weights import from_torch
from fcajax.weights.torch import names_pose
from fcajax.weights.torch.from_torch import MismatchError

HEAD = ('deconv_layers', 'final_layer')


@pytest.fixture(scope='module')
def model():
  return create_model(
      'simple_baseline', backbone='resnet18', num_keypoints=3, deconv_features=[6, 5, 4],
      backbone_options={'width': 8, 'stage_sizes': [1, 1, 1, 1]})


@pytest.fixture(scope='module')
def state():
  """A state dict of random numbers with the published names."""
  rng, state = np.random.default_rng(0), {}

  def norm(name, width):
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
      state[f'{name}.{leaf}'] = rng.random(width)
    state[f'{name}.num_batches_tracked'] = np.zeros((), np.int64)

  state['conv1.weight'] = rng.standard_normal((8, 3, 7, 7))
  norm('bn1', 8)
  for stage, (before, width) in enumerate(((8, 8), (8, 16), (16, 32), (32, 64)), 1):
    block = f'layer{stage}.0'
    state[f'{block}.conv1.weight'] = rng.standard_normal((width, before, 3, 3))
    state[f'{block}.conv2.weight'] = rng.standard_normal((width, width, 3, 3))
    norm(f'{block}.bn1', width)
    norm(f'{block}.bn2', width)
    if before != width:
      state[f'{block}.downsample.0.weight'] = rng.standard_normal((width, before, 1, 1))
      norm(f'{block}.downsample.1', width)
  for i, (before, width) in enumerate(((64, 6), (6, 5), (5, 4))):
    state[f'deconv_layers.{3 * i}.weight'] = rng.standard_normal((before, width, 4, 4))
    norm(f'deconv_layers.{3 * i + 1}', width)
  state['final_layer.weight'] = rng.standard_normal((3, 4, 1, 1))
  state['final_layer.bias'] = rng.standard_normal(3)
  return {name: np.asarray(value, np.float32 if value.ndim else np.int64)
          for name, value in state.items()}


def test_published_names_and_those_of_mmpose(model, state):
  published = from_torch(state, model)
  for head in ('keypoint_head', 'head'):
    other = {(f'{head}.' if name.startswith(HEAD) else 'backbone.') + name: value
             for name, value in state.items()}
    same = jax.tree.map(np.array_equal, published, from_torch({'state_dict': other}, model))
    assert all(jax.tree.leaves(same))
  assert names_pose.infer_overrides(state) == {'num_keypoints': 3}


def test_the_transposed_convolution_is_pytorchs(model, state):
  torch = pytest.importorskip('torch')
  kernel = from_torch(state, model)['params']['deconv2']['kernel']
  x = np.random.default_rng(1).standard_normal((2, 5, 7, 6)).astype(np.float32)
  expected = torch.nn.functional.conv_transpose2d(
      torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(state['deconv_layers.3.weight']),
      stride=2, padding=1)
  for platform in ('cpu', 'gpu'):
    with target(platform):
      found = jax.jit(double)(x, kernel)
    assert found.shape == (2, 10, 14, 5)
    np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize('change, message', [
    ({'deconv_layers.9.weight': np.zeros((4, 4, 4, 4), np.float32)}, 'deconv_layers.9.weight'),
    ({'fc.weight': np.zeros((3, 64), np.float32)}, 'fc.weight'),
    ({'final_layer.bias': np.zeros(4, np.float32)}, r'final_layer.bias \[4\] -> params/head/bias'),
])
def test_keys_that_do_not_fit(model, state, change, message):
  with pytest.raises(MismatchError, match=message):
    from_torch({**state, **change}, model)
