"""Attention layers: published outputs, plain-NumPy definitions, and the names a backbone uses."""
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from fcajax.layers.attention import (
  ATTENTIONS,
  ConvolutionalBlockAttention,
  EfficientChannelAttention,
  GlobalContext,
  MultiSpectralAttention,
  SqueezeExcite,
  eca_kernel_size,
  resolve_attention,
)
from fcajax.layers.attention.excite import reduced_width
from fcajax.layers.norm import BatchNorm
from tests.helpers.unchecked import unchecked

REFERENCES = {
    'top16_c64_14': ('top16', 14),
    'low8_c32_7': ('low8', 7),
    'bot4_c32_28': ('bot4', 28),
    'top16_c64_14_pooled_from_20x17': ('top16', (14, 14)),
    'top2_c16_56': ('top2', 56),
}


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def gated(x, z, params):
  """`x` times the gate of the squeeze `z`, in float64."""
  p = jax.tree.map(np.float64, params)
  hidden = z @ p['reduce']['kernel'] + p['reduce'].get('bias', 0)
  logits = np.maximum(hidden, 0) @ p['expand']['kernel'] + p['expand'].get('bias', 0)
  return x * sigmoid(logits)[:, None, None]


def randomised(variables):
  """Every leaf drawn anew, so that zeros and ones at initialisation hide nothing."""
  rng = np.random.default_rng(0)

  def draw(low):
    return lambda leaf: rng.uniform(low, 1, leaf.shape).astype(np.float32)
  return {name: jax.tree.map(draw(-1 if name == 'params' else 0.5), collection)
          for name, collection in variables.items()}


@pytest.mark.parametrize('name', REFERENCES)
def test_published_layers(data_dir, name):
  data = np.load(data_dir / 'fca.npz')
  reduce, expand = (data[f'{name}/weights/fc.{i}.weight'] for i in (0, 2))
  x, expected = data[f'{name}/input0'], data[f'{name}/output0']
  frequencies, size = REFERENCES[name]
  layer = MultiSpectralAttention(frequencies=frequencies, dct_size=size,
                                 reduction=reduce.shape[1] // reduce.shape[0])
  params = {'reduce': {'kernel': reduce.T}, 'expand': {'kernel': expand.T}}
  result = jax.jit(layer.apply)({'params': params}, x)
  assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('shape, frequencies, normalization', [
    ((2, 13, 9, 16), 'top8', 'ortho'), ((1, 8, 8, 8), 'low4', 'mean')])
def test_multispectral_is_its_definition(key, shape, frequencies, normalization):
  from fcajax.selection.frequencies import frequency_indices
  x = jax.random.normal(key, shape)
  layer = MultiSpectralAttention(frequencies=frequencies, reduction=2, normalization=normalization)
  variables = layer.init(key, x)
  _, height, width, channels = shape
  pairs = frequency_indices(frequencies)
  z = np.zeros((shape[0], channels))
  for c in range(channels):
    u, v = pairs[c // (channels // len(pairs))]
    u, v = round(u * height / 7), round(v * width / 7)
    rows = np.cos(np.pi * u * (np.arange(height) + 0.5) / height)
    columns = np.cos(np.pi * v * (np.arange(width) + 0.5) / width)
    rows, columns = rows / np.linalg.norm(rows), columns / np.linalg.norm(columns)
    z[:, c] = np.einsum('nhw,h,w->n', np.float64(x[..., c]), rows, columns)
  if normalization == 'mean':
    z /= math.sqrt(height * width)
  np.testing.assert_allclose(layer.apply(variables, x), gated(x, z, variables['params']),
                             rtol=1e-5, atol=1e-6)


def test_lowest_frequency_is_squeeze_and_excitation(key):
  x = jax.random.normal(key, (2, 14, 9, 16))
  plain, spectral = SqueezeExcite(), MultiSpectralAttention(
      frequencies='top1', normalization='mean')
  variables = plain.init(key, x)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, spectral.init(key, x))
  result = plain.apply(variables, x)
  np.testing.assert_allclose(spectral.apply(variables, x), result, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(
      result, gated(x, np.float64(x).mean((1, 2)), variables['params']), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('height, width, size', [
    (20, 17, (14, 14)), (25, 42, 7), (14, 20, (14, 7)), (5, 9, 7)])
def test_pooling_inside_the_filters_equals_pooling_the_input(key, height, width, size):
  from fcajax.ops.pooling import adaptive_average_pool
  x = jax.random.normal(key, (2, height, width, 32))
  layer = MultiSpectralAttention(dct_size=size, allow_smaller=True)
  variables = layer.init(key, x)

  def gate(x):
    return layer.apply(variables, x, mutable='intermediates')[1]['intermediates']['gate'][0]
  size = (size, size) if isinstance(size, int) else size
  np.testing.assert_allclose(gate(x), gate(adaptive_average_pool(x, size)), rtol=1e-5)


def test_squeeze_and_excite_widths(key):
  x = jax.random.normal(key, (2, 4, 4, 40))
  layer = SqueezeExcite(reduction=4, divisor=8, use_bias=True)
  variables = randomised(layer.init(key, x))
  assert jax.tree.map(jnp.shape, variables['params']) == {
      'reduce': {'kernel': (40, 8), 'bias': (8,)}, 'expand': {'kernel': (8, 40), 'bias': (40,)}}
  np.testing.assert_allclose(
      layer.apply(variables, x),
      gated(x, np.float64(x).mean((1, 2)), variables['params']), rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='reduction=16 leaves nothing of channels=8'):
    SqueezeExcite().init(key, x[..., :8])


@pytest.mark.parametrize('channels, size', [
    (4, 1), (8, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_eca_kernel_size(channels, size):
  # The integer part of (log2(C) + 1) / 2, or the odd number after it.
  assert eca_kernel_size(channels) == size


def test_eca_is_its_definition(key):
  x = jax.random.normal(key, (2, 5, 6, 16))
  layer = EfficientChannelAttention()
  variables = layer.init(key, x)
  kernel = np.float64(variables['params']['conv']['kernel'])
  assert kernel.shape == (3, 1, 1)
  z = np.pad(np.float64(x).mean((1, 2)), ((0, 0), (1, 1)))
  logits = sum(kernel[i, 0, 0] * z[:, i:i + 16] for i in range(3))
  np.testing.assert_allclose(layer.apply(variables, x), x * sigmoid(logits)[:, None, None],
                             rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='kernel_size=4 must be odd'):
    EfficientChannelAttention(kernel_size=4).init(key, x)


def test_cbam_is_its_definition(key):
  x = jax.random.normal(key, (2, 9, 8, 32))
  layer = ConvolutionalBlockAttention(use_bias=True)
  variables = randomised(layer.init(key, x))
  params = jax.tree.map(np.float64, variables['params'])
  x64 = np.float64(x)

  def mlp(z):
    hidden = np.maximum(z @ params['reduce']['kernel'] + params['reduce']['bias'], 0)
    return hidden @ params['expand']['kernel'] + params['expand']['bias']
  y = x64 * sigmoid(mlp(x64.mean((1, 2))) + mlp(x64.max((1, 2))))[:, None, None]
  maps = np.pad(np.stack([y.max(-1), y.mean(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
  kernel = params['spatial_conv']['kernel']
  conv = sum(maps[:, i:i + 9, j:j + 8] @ kernel[i, j] for i in range(7) for j in range(7))
  mean, var = (np.float64(variables['batch_stats']['spatial_norm'][k]) for k in ('mean', 'var'))
  norm = (conv - mean) / np.sqrt(var + 1e-5)
  norm = norm * params['spatial_norm']['scale'] + params['spatial_norm']['bias']
  np.testing.assert_allclose(layer.apply(variables, x), y * sigmoid(norm), rtol=1e-4, atol=1e-6)


def test_cbam_norm_trains_and_can_be_chosen(key):
  x = jax.random.normal(key, (4, 7, 7, 16))
  layer = ConvolutionalBlockAttention()
  variables = layer.init(key, x)
  _, updates = layer.apply(variables, x, train=True, mutable=['batch_stats'])
  before, after = (v['batch_stats']['spatial_norm']['mean'] for v in (variables, updates))
  assert np.abs(after - before).max() > 0
  other = ConvolutionalBlockAttention(norm=functools.partial(BatchNorm, use_scale=False))
  assert set(other.init(key, x)['params']['spatial_norm']) == {'bias'}
  with pytest.raises(ValueError, match='kernel_size=4 must be odd'):
    ConvolutionalBlockAttention(kernel_size=4).init(key, x)


def test_global_context_is_its_definition(key):
  x = jax.random.normal(key, (2, 5, 6, 32))
  layer = GlobalContext()
  fresh = layer.init(key, x)
  np.testing.assert_array_equal(layer.apply(fresh, x), x)
  variables = randomised(fresh)
  params = jax.tree.map(np.float64, variables['params'])
  x64 = np.float64(x)
  mask = np.exp(x64 @ params['mask']['kernel'] + params['mask']['bias'])
  z = (x64 * mask / mask.sum((1, 2), keepdims=True)).sum((1, 2))
  hidden = z @ params['reduce']['kernel'] + params['reduce']['bias']
  hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(
      hidden.var(-1, keepdims=True) + 1e-5)
  hidden = np.maximum(hidden * params['norm']['scale'] + params['norm']['bias'], 0)
  expected = x64 + (hidden @ params['expand']['kernel'] + params['expand']['bias'])[:, None, None]
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_resnet50_attention_parameters(facts):
  """What 16 blocks add to ResNet-50: FcaNet's count, and Table 2's 28.07M and 28.11M."""
  backbone = 25_557_032
  widths = [(256, 3), (512, 4), (1024, 6), (2048, 3)]

  def total(attention, **options):
    count = 0
    for channels, blocks in widths:
      layer = resolve_attention(attention, options)(name='attention')
      x = jax.ShapeDtypeStruct((1, 7, 7, channels), jnp.float32)
      variables = jax.eval_shape(layer.init, jax.random.key(0), x)
      count += blocks * sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    return backbone + count
  fca = facts['fcanet']['parameters']
  assert total('fca') == total('se') == fca['fcanet50'] == backbone + fca['attention_only']['50']
  assert total('eca') == 25_557_118
  assert total('cbam') == 28_073_576
  assert total('cbam', use_bias=True) == 28_089_624
  assert total('gc') == 28_105_032


@pytest.mark.parametrize('name', ATTENTIONS)
def test_one_interface(key, name):
  x = jax.random.normal(key, (2, 14, 14, 32))
  layer = resolve_attention(name)(name='attention', dtype=jnp.bfloat16)
  variables = layer.init(key, x, train=False)
  assert 'dct' not in variables and 'intermediates' not in variables
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  half, sown = layer.apply(variables, x, train=False, mutable=['intermediates'])
  assert half.shape == x.shape and half.dtype == jnp.bfloat16
  full = resolve_attention(name)(name='attention').apply(variables, x, train=False)
  assert full.dtype == jnp.float32
  np.testing.assert_allclose(np.float32(half), full, atol=0.05)
  if name != 'gc':
    gate, = sown['intermediates']['gate']
    assert gate.shape == (2, 32) and gate.dtype == jnp.float32


def test_squeeze_sums_bfloat16_in_float32(key):
  x = (jax.random.normal(key, (1, 56, 56, 16)) + 8).astype(jnp.bfloat16)
  layer = MultiSpectralAttention(reduction=2)
  variables = layer.init(key, x)
  _, half = layer.apply(variables, x, mutable=['intermediates'])
  _, full = layer.apply(variables, x.astype(jnp.float32), mutable=['intermediates'])
  np.testing.assert_array_equal(*(g['intermediates']['gate'][0] for g in (half, full)))


def test_gradient_and_vmap(key):
  x = jax.random.normal(key, (3, 9, 8, 8))
  layer = MultiSpectralAttention(frequencies='top4', reduction=2, dct_size=7)
  variables = layer.init(key, x)
  check_grads(lambda x: layer.apply(variables, x), (x,), order=1, modes=('rev',), atol=2e-2,
              rtol=2e-2)
  each = jax.vmap(lambda image: layer.apply(variables, image[None])[0])(x)
  np.testing.assert_allclose(each, layer.apply(variables, x), atol=1e-6)


def test_compiles_once_per_size(key):
  layer = MultiSpectralAttention(frequencies='top4', dct_size=7)
  variables = layer.init(key, jnp.zeros((1, 7, 7, 16)))
  apply = jax.jit(layer.apply)
  for height, width in ((7, 7), (25, 42), (42, 25), (25, 42), (7, 7)):
    assert apply(variables, jnp.ones((1, height, width, 16))).shape == (1, height, width, 16)
  assert apply._cache_size() == 3


@pytest.mark.parametrize('spec', [None, 'none'])
def test_no_attention(spec):
  assert resolve_attention(spec, {}) is None
  with pytest.raises(ValueError, match=r"was given the options \['reduction'\]"):
    resolve_attention(spec, {'reduction': 4})


def test_resolve_attention():
  layer = resolve_attention('fca', {'frequencies': 'top4'})(name='attention', dtype=jnp.bfloat16)
  assert layer.frequencies == 'top4' and layer.dtype == jnp.bfloat16
  assert resolve_attention(SqueezeExcite) is SqueezeExcite
  preset = functools.partial(MultiSpectralAttention, frequencies='bot4')
  layer = resolve_attention(preset, {'reduction': 8})(name='attention')
  assert (layer.frequencies, layer.reduction) == ('bot4', 8)

  def own(name, dtype=None, gain=1.0):
    return SqueezeExcite(name=name, dtype=dtype, reduction=int(gain))
  assert resolve_attention(own, {'gain': 2.0})(name='attention').reduction == 2
  assert resolve_attention(lambda **kw: nn.Dense(3, **kw), {'use_bias': False})(
      name='attention').use_bias is False


@pytest.mark.parametrize('spec, options, message', [
    ('fac', {}, "unknown attention 'fac': did you mean 'fca'"),
    ('zzz', {}, "unknown attention 'zzz': it is one of cbam, eca, fca, gc, none, se"),
    ('fca', {'frequency': 'top4'}, "no option 'frequency': did you mean 'frequencies'"),
    ('se', {'parent': None}, "no option 'parent'"),
    (functools.partial(SqueezeExcite, reduction=4), {'kernel': 1}, "no option 'kernel'"),
    (SqueezeExcite(), {}, 'must be None, a name'),
    (3, {}, 'attention=3 must be None, a name'),
])
def test_bad_attention(spec, options, message):
  with pytest.raises(ValueError, match=message):
    resolve_attention(spec, options)


@pytest.mark.parametrize('fields, shape, message', [
    ({}, (1, 14, 14, 100), 'channels=100 does not split into 16 frequencies'),
    ({}, (1, 4, 4, 32), 'both .* at 4 x 4'),
    ({'frequencies': [(6, 6)]}, (1, 3, 9, 32), r'becomes \(3, 8\), but 3 x 9 holds only'),
    ({'frequencies': 'best'}, (1, 7, 7, 32), "frequencies='best' is unknown"),
    ({'frequencies': 'none.json'}, (1, 7, 7, 32), 'cannot read the frequency file none.json'),
    ({'dct_size': 7}, (1, 14, 5, 32), r'the input is 14 x 5, smaller than dct_size=7 x 7: use'),
    ({'dct_size': (7, 7, 7)}, (1, 7, 7, 32), r'dct_size=\(7, 7, 7\) must be None'),
    ({'dct_size': 0}, (1, 7, 7, 32), 'dct_size=0 must be None'),
    ({'normalization': 'max'}, (1, 7, 7, 32), "normalization='max' is neither"),
    ({'basis': 'dft'}, (1, 7, 7, 32), "basis='dft' is not one of"),
])
def test_bad_multispectral(key, fields, shape, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    MultiSpectralAttention(**fields).init(key, jnp.zeros(shape))


def test_errors_name_the_layer(key):
  class Network(nn.Module):

    @nn.compact
    def __call__(self, x):
      return MultiSpectralAttention(name='attention')(x)

  with pytest.raises(ValueError, match=r'^attention: frequencies .* at 4 x 4'):
    Network().init(key, jnp.zeros((1, 4, 4, 32)))


@pytest.mark.parametrize('name', sorted(ATTENTIONS))
def test_integers_are_refused_and_gates_are_float32(key, name):
  layer = ATTENTIONS[name]()
  x = jax.random.normal(key, (2, 7, 7, 32)).astype(jnp.bfloat16)
  variables = layer.init(key, x)
  with unchecked(), pytest.raises(TypeError, match='got int32 values'):
    layer.apply(variables, jnp.ones(x.shape, jnp.int32))
  y, state = layer.apply(variables, x, mutable=['intermediates'])
  assert y.dtype == jnp.bfloat16
  assert all(gate.dtype == jnp.float32 for gate in jax.tree.leaves(state))


@pytest.mark.parametrize('channels, width', [(176, 8), (304, 16), (64, 8), (32, 8), (2048, 128)])
def test_divisor_rounds_to_the_nearest_multiple(channels, width):
  """The widths that timm's squeeze-excitation has at a reduction of 16."""
  assert reduced_width(channels, 16, 8) == width
