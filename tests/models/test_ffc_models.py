"""FFC networks: the published ResNet-18, every published count, ratios, sizes, recipes."""
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.analysis import cost
from fcajax.configs import imagenet_ffc, imagenette_ffc
from fcajax.models.backbones.ffc_resnet import FFCResNet
from fcajax.models.registry import create_model, list_models
from fcajax.ops.convolution import force_lowering
from fcajax.tasks.network import create_model as model_of
from fcajax.weights.torch import names_ffc
from fcajax.weights.torch.from_torch import from_torch
from tests.helpers.unchecked import unchecked


@pytest.fixture(scope='module')
def draw_weights(data_dir):
  spec = importlib.util.spec_from_file_location('draw_weights', data_dir / 'draw_weights.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def shapes(model, x):
  """((logits, features), variables) of shapes; `x` may be a shape."""
  x = jnp.zeros(x) if isinstance(x, tuple) else x
  with force_lowering('conv'):  # the quickest to trace
    return jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), x, capture_features=True))


def initial(model, x):
  """The variables; this kind of key compiles in a fraction of the default one's time."""
  return jax.jit(model.init)(jax.random.key(0, impl='unsafe_rbg'), x)


def tiny(**fields):
  """A network of one block a stage for 16 x 16 inputs."""
  fields = {'stage_sizes': (1, 1, 1, 1), 'block': 'basic', 'width': 16, 'stem': 'cifar',
            'num_classes': 5, 'ratio': 0.5, **fields}
  return FFCResNet(**fields)


def settings(name):
  """'resnet50_a0.25_lfu' -> (model name, overrides)."""
  match = re.match(r'(resne[x]?t\d+(?:_32x\dd)?)_a([\d.]+)(_lfu)?(_se)?', name)
  return f'ffc_{match[1]}', {'ratio': float(match[2]), 'lfu': bool(match[3]),
                             'use_se': bool(match[4])}


def test_every_published_parameter_count(facts):
  counted = {}
  for key in facts['ffc']['parameters']:
    name, overrides = settings(key)
    variables = shapes(create_model(name, **overrides), (1, 224, 224, 3))[1]
    counted[key] = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert counted == facts['ffc']['parameters']


def test_the_implementation_changes_the_cost_of_the_transforms_alone():
  fft, dft = (cost.count(tiny(fourier_implementation=name), (16, 16, 3)).total
              for name in ('fft', 'dft'))
  assert fft.macs == dft.macs
  assert 0 < fft.fourier_macs < dft.fourier_macs


def test_the_published_network_is_reproduced(data_dir, draw_weights):
  files = data_dir / 'ffc.json', data_dir / 'ffc.npz', 'ffc_resnet18_r25_lfu'
  state = draw_weights.torch_state(*files)
  overrides = names_ffc.infer_overrides(state)
  assert overrides == {'lfu': True, 'use_se': False, 'ratio': 0.25, 'num_classes': 1000}
  images = np.concatenate([draw_weights.model_input(files[0], files[2], seed_offset)
                           for seed_offset in (0, 1000)])
  stored = np.load(files[1])
  expected = np.concatenate([stored[f'{files[2]}/logits'],
                             stored[f'{files[2]}/logits_seed_plus_1000']])
  model = create_model('ffc_resnet18', **overrides)
  variables = from_torch({f'module.{key}': value for key, value in state.items()}, model)
  for implementation in ('fft', 'dft'):
    network = model.clone(fourier_implementation=implementation)
    logits = jax.jit(lambda v, x: network.apply(v, x))(variables, images)  # noqa: B023
    assert np.abs(logits - expected).max() < 1e-3 * expected.std()


def test_squeeze_excite_names_are_read():
  model = tiny(use_se=True, ratio=(0.5, 0.5, 0.5, 0))
  params = shapes(model, (1, 16, 16, 3))[1]['params']['stage1']['block0']['se']
  for key, path in (('conv1', 'squeeze'), ('conv_a2l', 'excite_local'),
                    ('conv_a2g', 'excite_global')):
    for leaf, name in (('weight', 'kernel'), ('bias', 'bias')):
      target = names_ffc.target(f'layer1.0.se_block.{key}.{leaf}', model)
      assert target.path == ('params', 'stage1', 'block0', 'se', path, name)
      shape = params[path][name].shape
      tensor = np.zeros((*shape[::-1], 1, 1) if leaf == 'weight' else shape)
      assert target.transform(tensor, shape).shape == shape
  assert names_ffc.target('layer1.0.se_block.conv_b.weight', model) is None
  assert names_ffc.target('layer1.0.conv1.ffc.gate.weight', model) is None


def test_features_and_output():
  model = create_model('ffc_resnet18', num_classes=7, dtype='bfloat16')
  (logits, features), variables = shapes(model, (2, 200, 300, 3))
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  assert {name: value.shape for name, value in features.items()} == {
      'stem': (2, 100, 150, 64), 'stage1': (2, 50, 75, 64), 'stage2': (2, 25, 38, 128),
      'stage3': (2, 13, 19, 256), 'stage4': (2, 7, 10, 512), 'pre_logits': (2, 512)}
  assert features['stage3'].dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('side', [225, 230, 97])
def test_sizes_that_do_not_divide(side):
  (logits, _), _ = shapes(create_model('ffc_resnet18'), (1, side, side, 3))
  assert logits.shape == (1, 1000)


def test_ratios_by_stage():
  def halves(ratio):
    params = shapes(tiny(ratio=ratio), (1, 16, 16, 3))[1]['params']
    norms = [params[f'stage{i + 1}']['block0']['conv2'] for i in range(4)]
    return [tuple(norm[half]['scale'].size if half in norm else 0
                  for half in ('norm_local', 'norm_global')) for norm in norms]

  assert halves(0.5) == [(8, 8), (16, 16), (32, 32), (128, 0)]
  assert halves(1) == [(0, 16), (0, 32), (0, 64), (128, 0)]
  assert halves(0) == [(16, 0), (32, 0), (64, 0), (128, 0)]
  assert halves((0, 0.25, 1, 0.75)) == [(16, 0), (24, 8), (0, 64), (32, 96)]


@pytest.mark.parametrize('fields', [
    {'local_to_global': False, 'global_to_local': False}, {'ratio': (0.5, 0.25), 'use_se': True}])
def test_no_parameter_is_out_of_reach(fields):
  model = tiny(stage_sizes=(1, 1), **fields)
  x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
  variables = initial(model, x)

  @jax.jit
  def gradient(params):
    def loss(params):
      logits, _ = model.apply({**variables, 'params': params}, x, train=True,
                              mutable=['batch_stats'])
      return (logits ** 2).sum()
    return jax.grad(loss)(params)

  flat = jax.tree_util.tree_leaves_with_path(gradient(variables['params']))
  assert all(np.abs(leaf).max() > 1e-5 for _, leaf in flat), [
      jax.tree_util.keystr(path) for path, leaf in flat if np.abs(leaf).max() <= 1e-5]


def test_the_cross_scale_ablation_keeps_the_beginning_and_the_end():
  params = shapes(tiny(local_to_global=False, global_to_local=False, lfu=False),
                  (1, 16, 16, 3))[1]['params']
  assert {'l2l', 'l2g'} <= set(params['stage1']['block0']['conv1'])
  for stage, layer in (('stage1', 'conv2'), ('stage2', 'conv1'), ('stage3', 'shortcut')):
    paths = {name for name in params[stage]['block0'][layer] if not name.startswith('norm')}
    assert paths == {'l2l', 'g2g'}
  assert {'l2l', 'g2l'} <= set(params['stage4']['block0']['conv1'])


def test_zero_init_last_starts_every_block_as_its_shortcut():
  model = tiny(zero_init_last=True, stage_sizes=(1, 1))
  params = initial(model, jnp.zeros((1, 8, 8, 3)))['params']
  for stage in ('stage1', 'stage2'):
    block = params[stage]['block0']
    halves = {'norm_local', 'norm_global'} & set(block['conv2'])
    assert halves
    for half in halves:
      assert not block['conv2'][half]['scale'].any()
      assert block['conv1'][half]['scale'].all() and block['shortcut'][half]['scale'].all()


def test_output_stride_keeps_the_parameters():
  (_, features), variables = shapes(tiny(output_stride=2), (1, 16, 16, 3))
  assert features['stage4'].shape == (1, 8, 8, 128)
  plain = shapes(tiny(), (1, 16, 16, 3))[1]
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, plain)


@pytest.mark.parametrize('fields, message', [
    ({'ratio': 1.2}, r'ratio=1.2 must be one number in \[0, 1\] or 4 of them'),
    ({'ratio': (0.5, 0.5)}, r'ratio=\(0.5, 0.5\) must be one number in \[0, 1\] or 4'),
    ({'block': 'wide'}, "block='wide' is not one of 'basic', 'bottleneck'"),
    ({'stem': 'patch'}, "stem='patch' is not one of"),
    ({'groups': 2}, "groups and base_width need block='bottleneck'"),
    ({'block': 'bottleneck', 'groups': 32, 'base_width': 4}, 'groups=32 does not divide'),
    ({'fourier_implementation': 'matrix'}, "implementation='matrix' is not one of"),
    ({'stage_strides': (2, 2, 2, 2)}, 'a map of 1 x 1 is too small for the local Fourier unit'),
])
def test_bad_fields_are_explained(fields, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    shapes(tiny(**fields), (1, 8, 8, 3))


def test_the_registry_knows_the_family():
  assert list_models('ffc_*') == [
      'ffc_resnet101', 'ffc_resnet152', 'ffc_resnet18', 'ffc_resnet20', 'ffc_resnet34',
      'ffc_resnet50', 'ffc_resnext101_32x8d', 'ffc_resnext50_32x4d']
  with pytest.raises(ValueError, match="no option 'ratios': did you mean 'ratio'"):
    create_model('ffc_resnet50', ratios=0.5)


@pytest.mark.parametrize('variant, key', [
    ('', 'resnet50_a0.25_lfu'), ('a1', 'resnet50_a1'), ('a0.5', 'resnet50_a0.5'),
    ('resnet101', 'resnet101_a0.25'), ('resnet152', 'resnet152_a0.25'),
    ('resnext50', 'resnext50_32x4d_a0.5')])
def test_recipes_build_the_published_networks(variant, key):
  name, overrides = settings(key)
  model = model_of(imagenet_ffc.get_config(variant), num_classes=1000)
  assert model == create_model(name, **overrides)


def test_recipes_are_complete(facts):
  for variant in imagenet_ffc.VARIANTS:
    config = imagenet_ffc.get_config(variant)
    model = model_of(config, num_classes=1000)
    assert (model.ratio, model.lfu) == (config.model.ratio, config.model.lfu)
    assert (config.num_epochs, config.batch_size, config.sync_batch_norm) == (90, 256, False)
    assert (config.optimizer.boundaries, config.optimizer.decay_factor) == ((30, 60, 80), 0.1)
  for alpha in facts['ffc']['paper_top1']['table2_alpha']:
    assert f'a{alpha}' in imagenet_ffc.VARIANTS
  assert imagenet_ffc.get_config('smoke').num_steps == 4
  assert imagenette_ffc.get_config('bfloat16').dtype == 'bfloat16'
  assert imagenette_ffc.get_config().dtype == 'float32'


def test_the_documented_table_is_that_of_the_facts(data_dir, facts):
  text = (data_dir.parent.parent / 'docs' / 'ffc.md').read_text()
  rows = re.findall(r'\| `([\w.]+)` \| ([\d,]+) \| [\d.]+ \| ([\d.]+) \|', text)
  top1 = facts['ffc']['paper_top1']
  published = {f'a{alpha}': value for alpha, value in top1['table2_alpha'].items()}
  published |= {'a0.25_lfu': top1['lfu_0.25'], 'a0.5_lfu': top1['lfu_0.5'],
                'no_crossing': top1['neither']}
  published |= {key: top1[key] for key in ('no_global_to_local', 'no_local_to_global', 'resnet101',
                                           'resnet152', 'resnext50')}
  assert {variant: float(value) for variant, _, value in rows} == published
  known = {f'{count:,}' for count in facts['ffc']['parameters'].values()}
  assert all(count in known for variant, count, _ in rows if not variant.startswith('no_'))
  for variant, _, value in rows:
    assert variant in imagenet_ffc.VARIANTS and f'{variant} [{value}]' in imagenet_ffc.__doc__
