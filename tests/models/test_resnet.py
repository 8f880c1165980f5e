"""ResNets: published parameter counts, features, strides, dtypes and initial values."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from fcajax.layers.attention import ConvolutionalBlockAttention
from fcajax.layers.norm import BatchNorm
from fcajax.models.backbones.resnet import ResNet
from fcajax.models.backbones.stages import plan_strides
from fcajax.models.registry import create_model
from fcajax.ops.convolution import force_lowering
from fcajax.ops.pooling import max_pool
from fcajax.ops.target import target
from tests.helpers.unchecked import unchecked

TINY = {'stage_sizes': (1, 1, 1, 1), 'width': 8, 'num_classes': 5}


def shapes(model, *shape, **kwargs):
  """What the model returns and its variables, without computing anything."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  with force_lowering('conv'):  # the quickest to trace
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, **kwargs), x)


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('depth', ['34', '50', '101', '152'])
def test_published_parameter_counts(depth, facts):
  published = facts['fcanet']['parameters']
  _, fca = shapes(create_model(f'fca_resnet{depth}'), 1, 224, 224, 3)
  _, plain = shapes(create_model(f'resnet{depth}'), 1, 224, 224, 3)
  assert count(fca['params']) == published[f'fcanet{depth}']
  assert count(plain['params']) == (
      published[f'fcanet{depth}'] - published['attention_only'][depth])


def test_other_parameter_counts(facts):
  # ResNet-18 and ResNeXt-50 as torchvision has them; the 32x32 nets as He et al. (0.27M, 0.86M with
  # shortcuts that have no parameters) and the two projections of 16 to 32 and 32 to 64 channels.
  for name, classes, size, expected in (
      ('resnet18', 1000, 224, 11689512), ('resnext50_32x4d', 1000, 224, 25028904),
      ('resnet50', 1000, 224, facts['ffc']['parameters']['resnet50_a0']),
      ('resnet20', 10, 32, 272474), ('resnet56', 10, 32, 855770)):
    _, variables = shapes(create_model(name, num_classes=classes), 1, size, size, 3)
    assert count(variables['params']) == expected, name
  _, variables = shapes(create_model('se_resnet34'), 1, 224, 224, 3)
  assert count(variables['params']) == facts['fcanet']['parameters']['fcanet34']
  for name, size in (('eca_resnet18', 224), ('fca_resnext50_32x4d', 224), ('fca_resnet20', 32)):
    shapes(create_model(name), 1, size, size, 3)


def test_parameter_names():
  _, variables = shapes(create_model('fca_resnet50'), 1, 224, 224, 3)
  names = traverse_util.flatten_dict(variables['params'], sep='/')
  block = [name for name in names if name.startswith('stage2/block0/')]
  assert sorted(block) == sorted(
      [f'stage2/block0/{n}' for n in (
          'conv1/kernel', 'conv2/kernel', 'conv3/kernel', 'shortcut_conv/kernel',
          'norm1/scale', 'norm1/bias', 'norm2/scale', 'norm2/bias', 'norm3/scale', 'norm3/bias',
          'shortcut_norm/scale', 'shortcut_norm/bias',
          'attention/reduce/kernel', 'attention/expand/kernel')])
  assert {name.split('/')[0] for name in names} == {
      'stem_conv', 'stem_norm', 'stage1', 'stage2', 'stage3', 'stage4', 'head'}


def test_features_and_dtypes():
  model = create_model('resnet50', num_classes=7, dtype='bfloat16')
  (logits, features), variables = shapes(model, 2, 96, 64, 3, capture_features=True)
  assert logits.shape == (2, 7) and logits.dtype == jnp.float32
  assert {name: leaf.shape for name, leaf in features.items()} == {
      'stem': (2, 48, 32, 64), 'stage1': (2, 24, 16, 256), 'stage2': (2, 12, 8, 512),
      'stage3': (2, 6, 4, 1024), 'stage4': (2, 3, 2, 2048), 'pre_logits': (2, 2048)}
  assert features['stage4'].dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_input_without_stem_and_stage_strides():
  model = ResNet((1, 1, 1, 1), stem='none', stage_strides=(1, 1, 2, 2))
  (_, features), variables = shapes(model, 2, 56, 56, 24, capture_features=True)
  assert 'stem_conv' not in variables['params']
  assert features['stem'].shape == (2, 56, 56, 24)
  assert [features[f'stage{i}'].shape[1] for i in (1, 2, 3, 4)] == [56, 56, 28, 14]


@pytest.mark.parametrize('output_stride, sizes', [
    (None, [16, 8, 4, 2]), (32, [16, 8, 4, 2]), (16, [16, 8, 4, 4]), (8, [16, 8, 8, 8])])
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_output_stride_keeps_parameters_and_size(name, output_stride, sizes):
  _, plain = shapes(create_model(name), 1, 64, 64, 3)
  (_, features), variables = shapes(
      create_model(name, output_stride=output_stride), 1, 64, 64, 3, capture_features=True)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, plain)
  assert [features[f'stage{i}'].shape[1] for i in (1, 2, 3, 4)] == sizes


@pytest.mark.parametrize('block', ['basic', 'bottleneck'])
def test_dilated_network_holds_the_strided_one(block, key):
  x = jax.random.normal(key, (1, 10, 7, 4))
  strided = ResNet((1, 2), width=4, num_classes=2, block=block, stem='none')
  dilated = strided.clone(output_stride=1)

  @jax.jit
  def run(key):
    variables = strided.init(key, x)
    return [m.apply(variables, x, capture_features=True)[1]['stage2'] for m in (strided, dilated)]
  coarse, dense = run(key)
  np.testing.assert_allclose(dense[:, ::2, ::2], coarse, rtol=1e-4, atol=1e-5)


def test_stride_plans():
  assert plan_strides('imagenet', (1, 2, 2, 2), 8) == (
      [1, 2, 1, 1], [(1, 1), (1, 1), (1, 2), (2, 4)])
  assert plan_strides('none', (1, 1, 2, 2), 2) == ([1, 1, 2, 1], [(1, 1), (1, 1), (1, 1), (1, 2)])


def test_a_step_of_training_moves_everything(key):
  model = ResNet((1,), width=4, num_classes=5, attention='se',
                 attention_options={'reduction': 4})
  x = jax.random.normal(key, (4, 12, 12, 3))

  @jax.jit
  def step(key):
    variables = model.init(key, x)

    def loss(params):
      logits, updates = model.apply(
          {**variables, 'params': params}, x, train=True, mutable=['batch_stats', 'losses'])
      return jnp.sum(logits**2), updates
    gradients, updates = jax.grad(loss, has_aux=True)(variables['params'])
    return gradients, updates['batch_stats'], variables['batch_stats']
  gradients, after, before = step(key)
  assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients))
  for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before)):
    assert not np.array_equal(new, old)


def test_zero_init_last_starts_blocks_as_the_identity(key):
  model = ResNet((1,), width=4, num_classes=5, block='basic', stem='none', zero_init_last=True)
  x = jax.random.normal(key, (2, 8, 8, 4))
  _, features = jax.jit(lambda k: model.init_with_output(k, x, capture_features=True))(key)[0]
  np.testing.assert_allclose(features['stage1'], nn.relu(x), atol=1e-6)


def test_initial_kernels_and_head(key):
  model = ResNet((1,), width=512, stem='none', block='basic')
  params = jax.jit(lambda k: model.init(k, jnp.zeros((1, 4, 4, 512))))(key)['params']
  kernel = params['stage1']['block0']['conv2']['kernel']
  assert abs(float(kernel.std()) / math.sqrt(2 / (9 * 512)) - 1) < 0.01
  head = params['head']['kernel']
  assert 0.99 < float(jnp.abs(head).max()) * math.sqrt(512) <= 1
  assert not params['head']['bias'].any()
  assert (params['stage1']['block0']['norm2']['scale'] == 1).all()


def test_fields_for_norm_and_activation():
  seen = []

  def group_norm(name, **fields):
    seen.append(name)
    norm = nn.GroupNorm(num_groups=2, name=name, **fields)
    return lambda x, train: norm(x)
  model = ResNet(**TINY, norm=group_norm, activation=nn.silu, zero_init_last=True)
  _, variables = shapes(model, 1, 32, 32, 3)
  assert 'batch_stats' not in variables
  assert set(seen) == {'stem_norm', 'norm1', 'norm2', 'norm3', 'shortcut_norm'}


@pytest.mark.parametrize('fields, message', [
    ({'stem': 'imagnet'}, "stem='imagnet' is not one of"),
    ({'block': 'wide'}, "block='wide' is not one of 'basic', 'bottleneck'"),
    ({'block': 'basic', 'groups': 32}, "need block='bottleneck'"),
    ({'output_stride': 12}, r'output_stride=12 is not one of \[4, 8, 16, 32\]'),
    ({'attention': 'cse'}, "unknown attention 'cse'.*'se'"),
])
def test_bad_fields_are_named(fields, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    shapes(ResNet(**{**TINY, **fields}), 1, 32, 32, 3)


@pytest.mark.parametrize('size', [(8, 9), (1, 2)])
def test_max_pool_and_its_gradient(size, key):
  x = jax.random.normal(key, (2, *size, 3))

  def elsewhere(x):
    with target('gpu'):
      return max_pool(x)

  def library(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

  @jax.jit
  def all_ways(x):
    results = []
    for pool in (library, max_pool, elsewhere):
      y, pull = jax.vjp(lambda x, pool=pool: pool(nn.relu(x)), x)
      results.append((y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))))
    return results
  want, *found = all_ways(x)
  for results in found:
    for got, expected in zip(results, want):
      np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_batch_norm_follows_its_definition(key):
  x = 3 + 2 * jax.random.normal(key, (4, 5, 5, 6))
  norm = BatchNorm()

  @jax.jit
  def run(x):
    variables = norm.init(key, x)
    return norm.apply(variables, x, train=True, mutable=['batch_stats']), norm.apply(variables, x)
  (y, updates), still = run(x)
  mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)
  np.testing.assert_allclose(updates['batch_stats']['mean'], 0.1 * mean, rtol=1e-4)
  np.testing.assert_allclose(updates['batch_stats']['var'], 0.9 + 0.1 * var, rtol=1e-4)
  np.testing.assert_allclose(still, x / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_axis_name_shares_batch_statistics(key):
  x = jax.random.normal(key, (8, 4, 4, 3)) * jnp.arange(1.0, 9)[:, None, None, None]
  mesh = jax.make_mesh((8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec
  shared, alone = BatchNorm(axis_name='batch'), BatchNorm()
  variables = {'params': {'scale': jnp.ones(3), 'bias': jnp.zeros(3)},
               'batch_stats': {'mean': jnp.zeros(3), 'var': jnp.ones(3)}}

  @jax.jit
  def run(x):
    def apply(norm):
      return lambda x: norm.apply(variables, x, train=True, mutable=['batch_stats'])[0]
    sharded = [jax.shard_map(apply(norm), mesh=mesh, in_specs=spec('batch'),
                             out_specs=spec('batch'))(x) for norm in (shared, alone)]
    return [*sharded, apply(alone)(x)]
  together, apart, whole = map(np.asarray, run(x))
  np.testing.assert_allclose(together, whole, atol=1e-5)
  assert np.abs(apart - whole).max() > 0.5


@pytest.mark.parametrize('attention', ['cbam', ConvolutionalBlockAttention])
def test_norms_inside_the_attention_are_the_networks(attention):
  def norms_of(options):
    found = {}

    def norm(name, **fields):
      found[name] = found.get(name, 0) + 1
      return BatchNorm(name=name, **fields)

    model = ResNet(stage_sizes=(1, 1), block='basic', stem='cifar', width=16, num_classes=3,
                   attention=attention, norm=norm, attention_options=options)
    jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    return found
  assert norms_of({})['spatial_norm'] == 2
  assert 'spatial_norm' not in norms_of({'norm': BatchNorm})


@pytest.mark.parametrize('name, fields, message', [
    ('resnet18', {'stage_strides': (1, 2)}, r'stage_strides=\(1, 2\) needs one entry for each'),
    ('resnet18', {'stage_sizes': (1,) * 5}, 'stage_strides=.* needs one entry for each'),
    ('resnet18', {'stage_strides': 2}, 'stage_strides=2 needs'),
    ('resnet18', {'stage_sizes': 2}, 'stage_sizes=2 needs'),
    ('fca_resnet50', {'dct_sizes': (56, 28)}, 'dct_sizes=.* needs one entry'),
    ('ffc_resnet18', {'stage_strides': (1, 2)}, 'stage_strides=.* needs one entry'),
])
def test_stages_need_an_entry_each(name, fields, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    shapes(create_model(name, **fields), 1, 64, 64, 3)


@pytest.mark.parametrize('count', [-3, 1.5, 'ten', True])
def test_the_number_of_classes_is_checked(count):
  with pytest.raises(ValueError, match=r'num_classes=.* must be a whole number of at least 1'):
    create_model('resnet18', num_classes=count)


class Halve(nn.Module):
  """An attention without a dtype."""
  by: float = 2.0

  @nn.compact
  def __call__(self, x, train=False):
    return x / self.by


def test_attention_may_be_any_class_or_function():
  def factory(name, by=2.0):
    return Halve(by, name=name)

  def open_factory(**fields):
    assert 'dtype' in fields
    fields.pop('dtype')
    return Halve(**fields)

  for attention in (Halve, factory, open_factory):
    model = create_model('resnet20', attention=attention)
    assert shapes(model, 1, 32, 32, 3)[0].shape == (1, 1000)
  model = create_model('resnet20', attention=factory, by=4.0)
  assert model.attention_options['by'] == 4.0 and shapes(model, 1, 32, 32, 3)
  with pytest.raises(ValueError, match='has no option'):
    create_model('resnet20', attention=factory, half=4.0)
  with pytest.raises(ValueError, match='attention=5 must be'):
    shapes(create_model('resnet20', attention=5), 1, 32, 32, 3)
