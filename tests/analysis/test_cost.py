"""The counter: published counts, hand-counted layers, and what it follows into."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import PartitionSpec as P

from fcajax.analysis import cost
from fcajax.layers.conv import Conv
from fcajax.models.registry import create_model

IMAGENET = (224, 224, 3)


@pytest.mark.parametrize('depth', ['34', '50', '101', '152'])
def test_fcanets_have_the_published_counts(facts, depth):
  published = facts['fcanet']
  total = cost.count(create_model(f'fca_resnet{depth}'), IMAGENET).total
  assert total.parameters == published['parameters'][f'fcanet{depth}']
  assert total.macs == published['macs_224']['conv_and_linear'][depth]
  assert total.dct_macs == published['macs_224']['dct'][depth]
  assert total.fourier_macs == 0


@pytest.mark.parametrize('name', ['resnet50_a0.25_lfu', 'resnext50_32x4d_a0.5'])
def test_fourier_networks_have_the_published_counts(facts, name):
  network, ratio = name.split('_a')
  model = create_model(f'ffc_{network}', ratio=float(ratio.split('_')[0]), lfu='lfu' in ratio)
  total = cost.count(model, IMAGENET).total
  published = facts['ffc']
  assert total.parameters == published['parameters'][name]
  assert total.macs / 1e9 == pytest.approx(
      published['gmacs_224_conv_and_linear'][name], abs=6e-4)
  assert total.fourier_macs > 0


@pytest.mark.parametrize('name, shape, key', [
    ('resnet50', IMAGENET, 'rgb_resnet50_224'),
    ('dct_resnet50_s1122', (56, 56, 24), 'dct24_resnet50_stage_strides_1122'),
    ('dct_resnet50', (56, 56, 24), 'dct24_resnet50_stage_strides_1222'),
    ('mobilenet_v2', IMAGENET, 'rgb_mobilenetv2_224'),
    ('dct_mobilenet_v2', (112, 112, 24), 'dct24_mobilenetv2_112'),
])
def test_coefficient_networks_have_the_published_counts(facts, name, shape, key):
  published = facts['dct_input']['gmacs'][key]
  total = cost.count(create_model(name), shape).total
  assert total.macs / 1e9 == pytest.approx(published, abs=6e-3 if published > 1 else 6e-4)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = Conv(8, name='conv1')(x)
    z = nn.relu(nn.Dense(4, name='dense')(x.mean((1, 2))))
    return x * z.mean()


class Stage(nn.Module):
  @nn.compact
  def __call__(self, x):
    for i in range(2):
      x = nn.remat(Block)(name=f'block{i}')(x)
    return x


class Tiny(nn.Module):
  @nn.compact
  def __call__(self, x, train=False, capture_features=False):
    stem = Conv(8, 3, 2, name='stem_conv')(x)
    x = stage = Stage(name='stage1')(stem)
    x = nn.Dense(5, name='head')(x.mean((1, 2)))
    return (x, {'stem': stem, 'stage1': stage}) if capture_features else x


def test_a_small_network_counted_by_hand():
  counted = cost.count(Tiny(), (8, 10, 3))
  conv, dense = 4 * 5 * 8 * 9 * 8, 8 * 4
  assert counted.stages == {
      'stem': cost.Counts(3 * 9 * 8, 4 * 5 * 8 * 9 * 3, 0, 0, 4 * 5 * 8),
      'stage1': cost.Counts(2 * (8 * 9 * 8 + 8 * 4 + 4), 2 * (conv + dense), 0, 0,
                            2 * (4 * 5 * 8 + 4)),
      'head': cost.Counts(8 * 5 + 5, 8 * 5, 0, 0, 5),
  }
  assert counted.output_shapes == {'stem': (4, 5, 8), 'stage1': (4, 5, 8), 'head': (5,)}
  assert counted.total.parameters == sum(
      counts.parameters for counts in counted.stages.values())


@pytest.mark.parametrize('lowering', ['auto', 'conv'])
@pytest.mark.parametrize('kernel, groups', [(1, 1), (3, 1), (3, 4), (3, 16), (1, 4)])
def test_counts_do_not_depend_on_the_lowering(kernel, groups, lowering):
  conv = Conv(16, kernel, groups=groups, lowering=lowering)
  x = jax.ShapeDtypeStruct((1, 6, 6, 16), jnp.float32)
  variables = jax.eval_shape(conv.init, jax.random.key(0), x)
  counted = cost.count_function(conv.apply, variables, x)['other']
  assert counted.macs == 36 * 16 * 16 // groups * kernel**2
  assert counted.activations == 36 * 16


def macs(function, *args):
  return sum((c for c in cost.count_function(function, *args).values()), cost.Counts()).macs


def test_inner_calls_are_followed():
  x = jnp.ones((4, 4))

  def scanned(x):
    return lax.scan(lambda carry, _: (carry @ x, None), x, None, length=5)[0]

  @jax.custom_vjp
  def custom(x):
    return x @ x
  custom.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x,))

  @jax.custom_jvp
  def forward(x):
    return x @ x @ x
  forward.defjvp(lambda p, t: (forward(*p), t[0]))

  assert macs(scanned, x) == 5 * 64
  assert macs(lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 128
  assert macs(jax.jit(custom), x) == 64
  assert macs(forward, x) == 128
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('data',))
  mapped = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(P('data'), P()),
                         out_specs=P('data'))
  assert macs(mapped, jnp.ones((8, 4)), x) == 8 * 4 * 4


def test_fourier_and_dct_scopes_are_apart():
  def function(x):
    with jax.named_scope('dct'):
      z = jnp.sum(x * jnp.arange(x.size).reshape(x.shape), axis=(1, 2))
    with jax.named_scope('fourier_transform'):
      spectrum = jnp.fft.rfft2(x, axes=(1, 2))
      rows = jnp.einsum('nijc,iu->nujc', x, jnp.ones((8, 3)))
    return z, spectrum, rows, x * 2

  counted = cost.count_function(function, jnp.ones((2, 8, 8, 3)))['other']
  assert counted.dct_macs == 2 * 8 * 8 * 3
  assert counted.fourier_macs == 1.25 * 64 * 6 * 2 * 3 + 2 * 8 * 3 * 8 * 3
  assert counted.macs == counted.activations == 0


def test_larger_images_cost_more_and_the_squeeze_follows_the_input():
  model = create_model('fca_resnet20', 10)
  small, large = (cost.count(model, (side, 2 * side, 3)) for side in (32, 64))
  assert large.total.parameters == small.total.parameters
  assert large.total.dct_macs == 4 * small.total.dct_macs
  for stage in ('stem', 'stage1', 'stage2', 'stage3'):
    assert large.output_shapes[stage][:2] == tuple(2 * n for n in small.output_shapes[stage][:2])
