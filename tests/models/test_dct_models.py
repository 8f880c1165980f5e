"""Networks on coefficients and MobileNetV2: references, published sizes, imported names."""
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcajax.layers.gate import FrequencyGate
from fcajax.models.registry import create_model, list_models
from fcajax.selection.coefficients import SUBSETS, coefficient_subset
from fcajax.weights.rgb_to_dct import adapt_rgb_variables, is_dct_variables
from fcajax.weights.torch import names_dct
from fcajax.weights.torch.from_torch import MismatchError, from_torch


@functools.cache
def _cost(name, shape):
  from fcajax.analysis import cost
  return cost.count(create_model(name), shape)


def _shapes(model, shape):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape))))


def test_reproduces_the_published_network(data_dir):
  sys.path.insert(0, str(data_dir))
  from draw_weights import model_input, torch_state
  name = 'resnet50_dct24_stride1122'
  files = str(data_dir / 'dct.json'), str(data_dir / 'dct.npz')
  state = torch_state(*files, name)
  overrides = names_dct.infer_overrides(state)
  assert overrides == {'num_classes': 1000, 'coefficients': '24S'}
  model = create_model('dct_resnet50_s1122', **overrides)
  variables = from_torch(state, model)
  x = np.concatenate([model_input(files[0], name), model_input(files[0], name, seed_offset=1000)])
  logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
  stored = np.load(files[1])
  expected = np.concatenate(
      [stored[f'{name}/logits'], stored[f'{name}/logits_seed_plus_1000']])
  assert np.abs(logits - expected).max() < 1e-3 * expected.std()

  del state['model.0.0.conv1.weight']
  state['upconv_y.weight'] = np.zeros((22, 64, 3, 3), np.float32)
  with pytest.raises(MismatchError, match='upconv_y') as error:
    from_torch(state, model)
  assert 'stage1/block0/conv1/kernel' in str(error.value)


@pytest.mark.parametrize('name, shape, gmacs', [
    ('dct_resnet50', (56, 56, 24), 'dct24_resnet50_stage_strides_1222'),
    ('dct_resnet50_s1122', (56, 56, 24), 'dct24_resnet50_stage_strides_1122'),
    ('mobilenet_v2', (224, 224, 3), 'rgb_mobilenetv2_224'),
    ('dct_mobilenet_v2', (112, 112, 24), 'dct24_mobilenetv2_112'),
])
def test_published_macs(facts, name, shape, gmacs):
  published = facts['dct_input']['gmacs'][gmacs]
  digits = len(str(published).split('.')[1])
  assert round(_cost(name, shape).total.macs / 1e9, digits) == published


@pytest.mark.parametrize('name, shape, parameters', [
    ('mobilenet_v2', (224, 224, 3), 3_504_872),
    ('dct_mobilenet_v2', (112, 112, 24), 3_503_728),
    ('dct_resnet50', (56, 56, 24), 25_534_696),
    ('dct_resnet50_s1122', (56, 56, 24), 25_534_696),
])
def test_published_parameters(name, shape, parameters):
  assert _cost(name, shape).total.parameters == parameters


@pytest.mark.parametrize('subset', SUBSETS)
def test_first_layer_fits_every_subset(subset):
  count = len(coefficient_subset(subset))
  model = create_model('dct_resnet50', coefficients=subset, stage_sizes=(1,))
  first = _shapes(model, (8, 8, count))
  first = first['params']['stage1']['block0']
  assert first['conv1']['kernel'].shape == (1, 1, count, 64)
  assert first['shortcut_conv']['kernel'].shape == (1, 1, count, 256)


def test_names():
  assert list_models('dct_*') == sorted(
      [f'dct_resnet{depth}{strides}' for depth in (18, 34, 50, 101) for strides in ('', '_s1122')]
      + ['dct_ffc_resnet18', 'dct_ffc_resnet50', 'dct_mobilenet_v2'])


@pytest.mark.parametrize(
    'name', ['dct_resnet18', 'dct_resnet50_s1122', 'dct_ffc_resnet18', 'dct_mobilenet_v2'])
def test_networks_take_a_gate_and_return_features(name):
  model = create_model(name, num_classes=7, coefficients='6S', gate=True)
  shape = (32, 32, 6)
  variables = _shapes(model, shape)
  assert 'gate' in variables['params'] and 'stem_conv' not in variables['params']
  (logits, features), updates = jax.eval_shape(
      lambda v, x, key, progress: model.apply(
          v, x, train=True, capture_features=True, progress=progress,
          mutable=['batch_stats', 'losses'], rngs={'gate': key, 'dropout': key}),
      variables, jnp.zeros((2, *shape)), jax.random.key(0), jnp.zeros(()))
  assert logits.shape == (2, 7) and logits.dtype == jnp.float32
  assert {'stem', 'stage1', 'stage2', 'stage3', 'stage4', 'pre_logits'} <= set(features)
  assert updates['losses']['gate']['gate'][0].shape == ()


def test_stage_strides():
  for name, sides in (('dct_resnet50', (56, 28, 14, 7)), ('dct_resnet50_s1122', (56, 56, 28, 14))):
    shapes = _cost(name, (56, 56, 24)).output_shapes
    assert tuple(shapes[f'stage{i}'][0] for i in range(1, 5)) == sides
    model = create_model(name, attention='fca', frequencies='top8', stage_sizes=(1, 1, 1, 1))
    assert model.dct_sizes == sides
    attention = _shapes(model, (56, 56, 24))['params']['stage4']['block0']['attention']
    assert jax.tree.leaves(attention)


def test_gate_inside_a_network_is_sampled_by_its_stream():
  model = create_model('dct_resnet18', num_classes=3, coefficients='6S', gate=True,
                       stage_sizes=(1,), width=8)
  x = np.random.default_rng(0).normal(size=(4, 4, 4, 6)).astype(np.float32)
  variables = jax.jit(model.init)(jax.random.key(0), x)
  sample = jax.jit(lambda key: model.apply(variables, x, sample_gate=True, rngs={'gate': key}))
  first, again, second = (np.asarray(sample(jax.random.key(i))) for i in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize('shape', [(1, 8, 8, 23), (8, 8, 24)])
def test_wrong_input(shape):
  with pytest.raises(ValueError, match=r"coefficients='24S' needs \[N, H/8, W/8, 24\]"):
    create_model('dct_resnet18').init(jax.random.key(0), np.zeros(shape, np.float32))


def test_unknown_subset_and_option():
  with pytest.raises(ValueError, match="coefficients='24X' is unknown"):
    create_model('dct_resnet18', coefficients='24X').init(
        jax.random.key(0), np.zeros((1, 8, 8, 24), np.float32))
  with pytest.raises(ValueError, match='gate_penalty'):
    create_model('dct_resnet18', gate_penalties=0.1)


def _torch_mobilenet(width):
  """Published structure in PyTorch under the published code's names."""
  nn = pytest.importorskip('torch', reason='compares with PyTorch').nn

  def block(cin, cout, stride, expansion):
    hidden = cin * expansion
    expand = [] if expansion == 1 else [
        nn.Conv2d(cin, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
    layers = [*expand, nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
              nn.BatchNorm2d(hidden), nn.ReLU6(),
              nn.Conv2d(hidden, cout, 1, bias=False), nn.BatchNorm2d(cout)]

    class Block(nn.Module):
      def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(*layers)

      def forward(self, x):
        return x + self.conv(x) if stride == 1 and cin == cout else self.conv(x)
    return Block()

  class Network(nn.Module):
    def __init__(self):
      super().__init__()
      channels = width(32)
      features = [nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False),
                                nn.BatchNorm2d(channels), nn.ReLU6())]
      for t, c, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                         (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(n):
          features.append(block(channels, width(c), s if i == 0 else 1, t))
          channels = width(c)
      self.features = nn.Sequential(*features)
      self.conv = nn.Sequential(nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280),
                                nn.ReLU6())
      self.classifier = nn.Linear(1280, 10)

    def forward(self, x):
      return self.classifier(self.conv(self.features(x)).mean((2, 3)))
  return Network()


def test_mobilenet_equals_pytorch():
  network = _torch_mobilenet(lambda c: max(8, c // 4 // 8 * 8 + 8 * (c // 4 % 8 >= 4)))
  import torch
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, value in network.state_dict().items():
      if name.endswith('running_var'):
        value.copy_(1 + torch.rand(value.shape, generator=generator))
      elif value.ndim == 1:
        value.add_(0.1 * torch.randn(value.shape, generator=generator))
  x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
  with torch.inference_mode():
    expected = network.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
  model = create_model('mobilenet_v2', num_classes=10, width=0.25)
  variables = from_torch(network.state_dict(), model, (1, 64, 64, 3))
  logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
  np.testing.assert_allclose(logits, expected, atol=1e-3 * expected.std())


def _names(model, spelling):
  """PyTorch names of a MobileNetV2 in one of three spellings, by the rules of that code."""
  stem = model == 'mobilenet_v2'
  convs, norms = [], []
  rows = ((1, 1), (6, 2), (6, 3), (6, 4), (6, 3), (6, 3), (6, 1))
  feature = int(stem)
  for stage, (expansion, blocks) in enumerate(rows):
    for block in range(blocks):
      if spelling == 'timm':
        prefix = f'blocks.{stage}.{block}.'
        layers = ['conv_dw', 'conv_pw'] if expansion == 1 else ['conv_pw', 'conv_dw', 'conv_pwl']
        convs += [prefix + layer for layer in layers]
        norms += [f'{prefix}bn{i + 1}' for i in range(len(layers))]
      else:
        prefix = f'features.{feature}.conv.'
        count = 2 if expansion == 1 else 3
        if spelling == 'published':
          places = [(3 * i, 3 * i + 1) for i in range(count)]
        else:
          places = [(f'{i}.0', f'{i}.1') for i in range(count - 1)] + [(count - 1, count)]
        convs += [f'{prefix}{conv}' for conv, _ in places]
        norms += [f'{prefix}{norm}' for _, norm in places]
      feature += 1
  last = {'published': ('conv.0', 'conv.1'), 'timm': ('conv_head', 'bn2'),
          'torchvision': (f'features.{feature}.0', f'features.{feature}.1')}[spelling]
  first = ('conv_stem', 'bn1') if spelling == 'timm' else ('features.0.0', 'features.0.1')
  pairs = [last, *([first] if stem else [])]
  convs += [conv for conv, _ in pairs]
  norms += [norm for _, norm in pairs]
  head = 'classifier.1' if spelling == 'torchvision' else 'classifier'
  return ([f'{c}.weight' for c in convs] + [f'{head}.weight', f'{head}.bias']
          + [f'{n}.{leaf}' for n in norms
             for leaf in ('weight', 'bias', 'running_mean', 'running_var')])


@pytest.mark.parametrize('name', ['mobilenet_v2', 'dct_mobilenet_v2'])
@pytest.mark.parametrize('spelling', ['published', 'torchvision', 'timm'])
def test_every_mobilenet_name_finds_its_place(name, spelling):
  model = create_model(name)
  shape = (64, 64, 3) if name == 'mobilenet_v2' else (32, 32, 24)
  expected = traverse_util.flatten_dict(dict(_shapes(model, shape)))
  state = names_dct.rename(dict.fromkeys(_names(name, spelling)))
  targets = [names_dct.target(key, model) for key in state]
  assert None not in targets
  assert sorted(target.path for target in targets) == sorted(expected)
  kinds = {path[-1]: {t.transform.__name__ for t in targets if t.path[-1] == path[-1]}
           for path in expected if path[-2] != 'head'}
  assert kinds['kernel'] <= {'conv', 'dense'} and kinds['scale'] == {'vector'}
  for key in ('features.40.0.weight', 'features.2.conv.9.weight', 'deconv_y.0.weight'):
    assert names_dct.target(key, model) is None


def test_torchvision_layers_are_told_from_published_ones():
  places = {'features.1.conv.0.0': 'depthwise_conv', 'features.1.conv.1': 'project_conv',
            'features.1.conv.2': 'project_norm', 'features.2.conv.0.1': 'expand_norm',
            'features.2.conv.1.0': 'depthwise_conv', 'features.2.conv.2': 'project_conv',
            'features.2.conv.3': 'project_norm'}
  state = names_dct.rename({f'{module}.weight': None for module in places})
  found = [names_dct.target(key, create_model('mobilenet_v2')).path[3] for key in state]
  assert found == list(places.values())


def test_overrides_from_checkpoints():
  def state(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}
  assert names_dct.infer_overrides(state(**{
      'model.0.0.conv1.weight': (64, 192, 1, 1), 'inp_GM.inp_gate.0.weight': (192, 192, 1, 1),
      'fc.weight': (10, 2048)})) == {'num_classes': 10, 'gate': True, 'coefficients': '192'}
  assert names_dct.infer_overrides(state(**{
      'features.0.conv.0.weight': (12, 1, 3, 3), 'classifier.weight': (5, 1280)})) == {
          'num_classes': 5, 'coefficients': '12S'}
  assert names_dct.infer_overrides(state(**{'model.0.0.conv1.weight': (64, 25, 1, 1)})) == {}


def _random_variables(model, shape, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32),
                      dict(_shapes(model, shape)))


@pytest.mark.parametrize('name, coefficients, fresh', [
    ('resnet50', '24S', ()),
    ('resnet50', '64S', ()),
    ('resnet50', '192', ('stage1/block0/conv1', 'stage1/block0/shortcut_conv')),
    ('resnet18', '24S', ('stage1/block0/shortcut_conv', 'stage1/block0/shortcut_norm')),
    ('mobilenet_v2', '24S', ()),
    ('mobilenet_v2', '32S', ()),
    ('mobilenet_v2', '48S', ('stage1/block0/depthwise_conv', 'stage1/block0/depthwise_norm',
                             'stage1/block0/project_conv')),
])
def test_initialising_from_rgb(name, coefficients, fresh):
  rgb = _random_variables(create_model(name, num_classes=4), (64, 64, 3), 0)
  count = len(coefficient_subset(coefficients))
  model = create_model(f'dct_{name}', num_classes=4, coefficients=coefficients, gate=True)
  start = _random_variables(model, (32, 32, count), 1)
  assert is_dct_variables(start) and not is_dct_variables(rgb)
  result, paths = adapt_rgb_variables(rgb, start)
  modules = {path.partition('/')[2].rpartition('/')[0] for path in paths}
  assert {m for m in modules if not m.startswith('gate')} == set(fresh)
  assert any(m.startswith('gate') for m in modules)
  assert jax.tree.map(np.shape, result) == jax.tree.map(np.shape, start)
  np.testing.assert_array_equal(result['params']['head']['kernel'],
                                rgb['params']['head']['kernel'])
  if name == 'resnet50' and count <= 64:
    np.testing.assert_array_equal(
        result['params']['stage1']['block0']['conv1']['kernel'],
        rgb['params']['stage1']['block0']['conv1']['kernel'][:, :, :count])
  if name == 'mobilenet_v2' and count <= 32:
    np.testing.assert_array_equal(
        result['params']['stage1']['block0']['depthwise_conv']['kernel'],
        rgb['params']['stage1']['block0']['depthwise_conv']['kernel'][..., :count])
    np.testing.assert_array_equal(
        result['batch_stats']['stage1']['block0']['depthwise_norm']['mean'],
        rgb['batch_stats']['stage1']['block0']['depthwise_norm']['mean'][:count])


def test_initialising_with_another_head_or_depth():
  rgb = _random_variables(create_model('resnet18', num_classes=4), (64, 64, 3), 0)
  start = _random_variables(create_model('dct_resnet18', num_classes=9), (32, 32, 24), 1)
  _, fresh = adapt_rgb_variables(rgb, start)
  assert 'params/head/kernel' in fresh
  start = _random_variables(create_model('dct_resnet34', num_classes=4), (32, 32, 24), 1)
  with pytest.raises(ValueError, match='belong to another network'):
    adapt_rgb_variables(rgb, start)


def test_a_fresh_gate_holds_no_penalty(key):
  """Or the variables that `init` returns would bring one along into the first step."""
  gate, x = FrequencyGate(), np.ones((2, 4, 4, 6), np.float32)
  variables = gate.init({'params': key, 'gate': key}, x, train=True)
  assert 'losses' not in variables
  _, state = gate.apply(variables, x, train=True, rngs={'gate': key},
                        mutable=['losses', 'batch_stats'])
  assert len(jax.tree.leaves(state['losses'])) == 1
