"""Fast Fourier convolution: published outputs, a plain-NumPy definition, sizes, ratios, errors."""
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from fcajax.layers.conv import Conv
from fcajax.layers.fourier import (
  FastFourierConv,
  FastFourierConv2D,
  FFCNormAct,
  FFCSqueezeExcite,
  FourierUnit,
  LocalFourierUnit,
  SpectralTransform,
  join,
  split,
  split_channels,
)
from fcajax.ops.target import target
from fcajax.weights.torch.from_torch import MismatchError, from_torch
from tests.helpers.unchecked import unchecked

LAYERS = {
    'fourier_unit_8_14': functools.partial(FourierUnit, 8),
    'fourier_unit_6_12x9': functools.partial(FourierUnit, 6),
    'fourier_unit_groups2': functools.partial(FourierUnit, 8, groups=2),
    'spectral_lfu_s1': functools.partial(SpectralTransform, 16),
    'spectral_lfu_s2': functools.partial(SpectralTransform, 32, strides=2),
    'spectral_nolfu_s1': functools.partial(SpectralTransform, 16, lfu=False),
    'ffc_bn_act_k3_s1': functools.partial(FFCNormAct, 32, 3, 0.25, 0.25),
    'ffc_bn_act_k3_s2': functools.partial(FFCNormAct, 64, 3, 0.25, 0.25, 2, lfu=False),
    'ffc_bn_act_k1_entry': functools.partial(FFCNormAct, 32, 1, 0, 0.5),
    'ffc_bn_act_k1_exit': functools.partial(FFCNormAct, 32, 1, 0.5, 0),
}


def random(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shapes(layer, *args):
  """Shapes of (output, variables)."""
  return jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), *args))


def drawn(layer, *args, seed=0):
  """Variables of `layer` for `args`, all of them random: statistics and scales too."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    value = rng.standard_normal(leaf.shape).astype(np.float32)
    name = path[-1].key
    if name == 'kernel':
      return value / np.sqrt(np.prod(leaf.shape[:-1]))
    return np.exp(0.1 * value) if name in ('scale', 'var') else 0.1 * value

  return jax.tree_util.tree_map_with_path(draw, shapes(layer, *args)[1])


def apply(layer, variables, x, **options):
  return jax.jit(lambda v, x: layer.apply(v, x, **options))(variables, x)


def assert_close(actual, expected, tolerance=1e-5):
  assert actual.shape == expected.shape
  error = np.abs(np.asarray(actual, np.float32) - expected).max() / np.abs(expected).max()
  assert error < tolerance


def stored(data_dir, name, part):
  """The stored arrays `NAME/PART...` in order, or by PyTorch name for the weights."""
  arrays = np.load(data_dir / 'ffc.npz')
  prefix = f'{name}/{part}'
  found = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
  return {k.removeprefix('/'): v for k, v in found.items()} if part == 'weights' else [
      found[key] for key in sorted(found)]


@pytest.mark.parametrize('implementation', ['fft', 'dft'])
@pytest.mark.parametrize('name', LAYERS)
def test_published_outputs_are_reproduced(data_dir, name, implementation):
  weights, inputs, outputs = (stored(data_dir, name, part) for part in
                              ('weights', 'input', 'output'))
  pairs = LAYERS[name].func is FFCNormAct
  field = 'fourier_implementation' if pairs else 'implementation'
  layer = LAYERS[name](**{field: implementation})
  x = (*inputs, None)[:2] if pairs else inputs[0]
  shape = tuple(half if half is None else half.shape for half in x) if pairs else x.shape
  y = apply(layer, from_torch(weights, layer, shape), x)
  if pairs:
    assert (y[1] is None) == (len(outputs) == 1)
  for actual, expected in zip(y if pairs else [y], outputs):
    assert_close(actual, expected)


def test_published_squeeze_excite_is_reproduced(data_dir):
  weights, inputs, outputs = (stored(data_dir, 'ffc_se_r25', part) for part in
                              ('weights', 'input', 'output'))
  layer = FFCSqueezeExcite()
  variables = from_torch(weights, layer, tuple(x.shape for x in inputs))
  for actual, expected in zip(apply(layer, variables, tuple(inputs)), outputs):
    assert_close(actual, expected)


def test_inpainting_names_are_read_and_their_gate_is_not(data_dir):
  weights = stored(data_dir, 'ffc_bn_act_k3_s1', 'weights')
  bare = {key.removeprefix('ffc.'): value for key, value in weights.items() if 'ffc.' in key}
  layer = FastFourierConv2D(32, 3, 0.25, 0.25, padding_mode='reflect')
  variables = from_torch(bare, layer, (1, 16, 16, 32))
  np.testing.assert_array_equal(
      variables['params']['g2g']['fourier_unit']['conv']['kernel'][0, 0],
      bare['convg2g.fu.conv_layer.weight'][:, :, 0, 0].T)
  np.testing.assert_array_equal(variables['batch_stats']['g2g']['norm1']['mean'],
                                bare['convg2g.conv1.1.running_mean'])
  prefixed = {f'module.{key}': value for key, value in bare.items()}
  jax.tree.map(np.testing.assert_array_equal, from_torch(prefixed, layer, (1, 16, 16, 32)),
               variables)
  with pytest.raises(MismatchError, match=r'gate\.weight'):
    from_torch({**bare, 'gate.weight': np.zeros((2, 32, 1, 1))}, layer, (1, 16, 16, 32))
  with pytest.raises(ValueError, match='give input_shape for a FastFourierConv2D'):
    from_torch(bare, layer)


def norm_numpy(x, variables, *path):
  params, stats = variables['params'], variables['batch_stats']
  for name in path:
    params, stats = params[name], stats[name]
  return (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']


def unit_numpy(x, variables, *path):
  """The Fourier unit, written out with NumPy's FFT."""
  kernel = variables['params']
  for name in (*path, 'conv', 'kernel'):
    kernel = kernel[name]
  spectrum = np.fft.rfft2(x, axes=(1, 2), norm='ortho')
  channels = np.empty((*spectrum.shape[:3], 2 * x.shape[-1]))
  channels[..., ::2], channels[..., 1::2] = spectrum.real, spectrum.imag
  y = np.maximum(norm_numpy(channels @ kernel[0, 0], variables, *path, 'norm'), 0)
  return np.fft.irfft2(y[..., ::2] + 1j * y[..., 1::2], s=x.shape[1:3], axes=(1, 2), norm='ortho')


@pytest.mark.parametrize('size', [(5, 7), (6, 3), (2, 2)])
def test_the_spectral_transform_is_its_definition_at_any_size(size):
  height, width = size
  x = random((2, *size, 6))
  layer = SpectralTransform(12)
  variables = drawn(layer, x)
  params = variables['params']
  z = np.maximum(norm_numpy(x @ params['conv1']['kernel'][0, 0], variables, 'norm1'), 0)
  h, w = (height + 1) // 2, (width + 1) // 2
  quarter = z[..., :2]  # ceil(6 / 4) channels
  stacked = np.concatenate([quarter[:, :h, :w], quarter[:, -h:, :w], quarter[:, :h, -w:],
                            quarter[:, -h:, -w:]], axis=-1)
  local = unit_numpy(stacked, variables, 'local_fourier_unit')
  local = np.concatenate([local, local], axis=1)[:, :height]
  local = np.concatenate([local, local], axis=2)[:, :, :width]
  z = z + unit_numpy(z, variables, 'fourier_unit') + local
  assert_close(apply(layer, variables, x), z @ params['conv2']['kernel'][0, 0])


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
@pytest.mark.parametrize('groups', [1, 2])
def test_the_local_output_is_the_sum_of_the_two_paths(groups, platform):
  pair = random((2, 9, 8, 12)), random((2, 9, 8, 4), seed=1)
  layer = FastFourierConv(16, 3, 0.25, 0.25, 2, groups=groups, lfu=False, padding_mode='reflect')
  variables = drawn(layer, pair)
  with target(platform):
    local, global_ = apply(layer, variables, pair)

  def path(name, x, features):
    conv = Conv(features, 3, 2, groups=groups, padding_mode='reflect')
    return conv.apply({'params': variables['params'][name]}, x)

  spectral = SpectralTransform(4, 2, lfu=False)
  inner = {collection: variables[collection]['g2g'] for collection in variables}
  assert_close(local, path('l2l', pair[0], 12) + path('g2l', pair[1], 12))
  assert_close(global_, path('l2g', pair[0], 4) + apply(spectral, inner, pair[1]))


def test_strides_average_what_exists():
  x = random((1, 5, 7, 4))
  pooling = SpectralTransform(4, (2, 3), lfu=False)
  variables = drawn(pooling, x)
  expected = np.stack([np.stack([x[:, i:i + 2, j:j + 3].mean((1, 2)) for j in (0, 3, 6)], 1)
                       for i in (0, 2, 4)], 1)
  plain = SpectralTransform(4, lfu=False)
  assert_close(apply(pooling, variables, x), apply(plain, variables, expected))


@pytest.mark.parametrize('strides', [1, 2])
def test_any_size_and_ratio_keeps_the_paths_together(strides):
  sizes = (225, 225), (230, 230), (200, 300), (4, 3), (5, 64)
  ratios = 0, 0.3, 0.75, 1
  for i, ratio_in in enumerate(ratios):
    for j, ratio_out in enumerate(ratios):
      height, width = sizes[(i + j) % len(sizes)]
      layer = FFCNormAct(20, 3, ratio_in, ratio_out, strides)
      x = split(jnp.zeros((1, height, width, 10)), ratio_in)
      y, _ = shapes(layer, x)
      expected = split_channels(20, ratio_out)
      assert tuple(0 if half is None else half.shape[-1] for half in y) == expected
      side = -(-height // strides), -(-width // strides)
      assert all(half.shape[:3] == (1, *side) for half in y if half is not None)


def test_channels_split_exactly():
  assert split_channels(10, 0.3) == (7, 3)
  assert split_channels(64, 0.1) == (58, 6)  # 6.4 rounded down
  assert split_channels(100, 0.29) == (71, 29)  # 0.29 * 100 < 29 in floating point
  assert split_channels(7, 0) == (7, 0) and split_channels(7, 1) == (0, 7)
  for channels in range(1, 65):
    for n in range(channels + 1):
      assert split_channels(channels, n / channels) == (channels - n, n)


@pytest.mark.parametrize('off, silenced', [
    ('global_to_local', 'g2l'), ('local_to_global', 'l2g'), ('global_to_global', 'g2g')])
def test_each_path_can_be_left_out(off, silenced):
  pair = random((1, 6, 6, 4)), random((1, 6, 6, 4), seed=1)
  whole = FastFourierConv(8, lfu=False)
  variables = drawn(whole, pair)
  layer = FastFourierConv(8, lfu=False, **{off: False})
  assert set(shapes(layer, pair)[1]['params']) == set(variables['params']) - {silenced}
  # The path's last kernel at zero silences it in the whole layer.
  path = variables['params'][silenced]
  last = path['conv2'] if silenced == 'g2g' else path
  last['kernel'] = np.zeros_like(last['kernel'])
  for actual, expected in zip(apply(layer, variables, pair), apply(whole, variables, pair)):
    assert_close(actual, expected)


def test_one_line_swaps_a_convolution():
  class Net(nn.Module):
    conv: type

    @nn.compact
    def __call__(self, x, train):
      x = nn.relu(nn.Conv(8, (3, 3))(x))
      if self.conv is nn.Conv:
        x = nn.Conv(16, (3, 3), strides=(2, 2), padding=1, use_bias=False)(x)
      else:
        x = FastFourierConv2D(16, (3, 3), strides=(2, 2), use_bias=False, train=train)(x)
      return nn.Dense(3)(x.mean((1, 2)))

  x = random((2, 9, 7, 3))
  assert shapes(Net(nn.Conv), x, True)[0].shape == (2, 3)
  y, variables = shapes(Net(FastFourierConv2D), x, True)
  assert y.shape == (2, 3) and set(variables) == {'params', 'batch_stats'}


def test_the_one_tensor_door_is_the_pair_layer():
  x = random((2, 6, 5, 8))
  door = FastFourierConv2D(12, 3, 0.25, 0.5, use_bias=True)
  variables = drawn(door, x, False)
  bias = variables['params']['bias']
  pair = {**variables, 'params': {k: v for k, v in variables['params'].items() if k != 'bias'}}
  expected = join(apply(FastFourierConv(12, 3, 0.25, 0.5), pair, split(x, 0.25)))
  assert_close(apply(door, variables, x, train=False), expected + bias)
  with pytest.raises(Exception, match='train'):
    door.apply(variables, x)


def test_batch_statistics_move_only_in_training():
  pair = random((4, 6, 6, 4)), random((4, 6, 6, 4), seed=1)
  layer = FFCNormAct(8)
  variables = drawn(layer, pair)
  y, updates = apply(layer, variables, pair, train=True, mutable=['batch_stats'])
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), updates['batch_stats'],
                       variables['batch_stats'])
  assert all(jax.tree.leaves(moved))
  _, updates = apply(layer, variables, pair, train=False, mutable=['batch_stats'])
  jax.tree.map(np.testing.assert_array_equal, updates['batch_stats'], variables['batch_stats'])
  assert all((half >= 0).all() and half.any() for half in y)


def test_the_output_norms_can_start_at_zero():
  x = random((1, 4, 4, 4))
  layer = FFCNormAct(8, 1, 0, 0.5, output_activation=None,
                     norm_scale_init=nn.initializers.zeros_init())
  y, _ = jax.jit(layer.init_with_output)(jax.random.key(0), (x, None))
  assert [half.shape[-1] for half in y] == [4, 4] and not any(half.any() for half in y)


@pytest.mark.parametrize('implementation', ['fft', 'dft'])
def test_bfloat16_stays_near_float32(implementation):
  pair = random((2, 14, 14, 24)), random((2, 14, 14, 8), seed=1)
  layer = FFCNormAct(32, 3, 0.25, 0.25, fourier_implementation=implementation)
  variables = drawn(layer, pair)
  expected = apply(layer, variables, pair)
  narrow = apply(layer.clone(dtype=jnp.bfloat16), variables, pair)
  for actual, reference in zip(narrow, expected):
    assert actual.dtype == jnp.bfloat16
    assert_close(actual, reference, 3e-2)
  created = shapes(layer.clone(dtype=jnp.bfloat16), pair)[1]
  assert {leaf.dtype for leaf in jax.tree.leaves(created)} == {jnp.dtype('float32')}


def gradient_step(layer, variables, x, axis):
  def loss(params):
    y, _ = layer.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
    return sum((half ** 2).sum() for half in y)
  return jax.lax.pmean(jax.grad(loss)(variables['params']), axis)


@pytest.mark.parametrize('implementation', ['fft', 'dft'])
def test_devices_keep_their_activations(implementation):
  """Eight devices, forward and backward, under shard_map and pmap: no activation is gathered."""
  x = random((8, 8, 6, 4)), random((8, 8, 6, 4), seed=1)
  layer = FFCNormAct(8, 3, fourier_implementation=implementation, axis_name='batch')
  variables = drawn(FFCNormAct(8, 3), x)
  step = functools.partial(gradient_step, layer, axis='batch')
  mesh = jax.make_mesh((8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jax.jit(jax.shard_map(
      step, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec('batch')),
      out_specs=PartitionSpec(), check_vma=False))
  mapped = jax.pmap(step, axis_name='batch', in_axes=(None, 0))
  per_device = jax.tree.map(lambda half: half[:, None], x)
  for compiled in (sharded.lower(variables, x).compile(),
                   mapped.lower(variables, per_device).compile()):
    text = compiled.as_text()
    assert 'all-reduce' in text
    assert 'all-gather' not in text and 'all-to-all' not in text


@pytest.mark.parametrize('ratio', [-0.1, 1.5])
def test_a_ratio_outside_the_unit_interval_is_refused(ratio):
  with pytest.raises(ValueError, match=rf'ratio={ratio} is outside \[0, 1\]'):
    split_channels(8, ratio)
  with pytest.raises(ValueError, match=rf'ratio={ratio} is outside \[0, 1\]'):
    shapes(FastFourierConv(8, 3, 0.5, ratio), (jnp.ones((1, 4, 4, 4)),) * 2)


ONES = jnp.ones((1, 4, 4, 4))


@pytest.mark.parametrize('layer, x, message', [
    (FastFourierConv(8, 3, 0, 0.5), (ONES, ONES),
     '4 local and 4 global channels given, but ratio_in=0 of 8 channels is 8 and 0'),
    (FastFourierConv(8, 3, 0.5, 0.5), (ONES, None),
     '4 local and 0 global channels given, but ratio_in=0.5 of 4 channels is 2 and 2'),
    (FastFourierConv(8, 3, 0.5, 0.5), ONES, 'ratio_in=0.5 of 4 channels'),
    (FastFourierConv(8, 3, 1, 0.5), (ONES, None), 'ratio_in=1 of 4 channels is 0 and 4'),
    (FastFourierConv(8), (None, None), 'both halves are None'),
    (FastFourierConv(8), (ONES, ONES[:, :2]), 'differ in more than channels'),
    (FastFourierConv(8, 2), (ONES, ONES), 'kernel_size=2 would change the size'),
    (FastFourierConv(8, groups=3), (ONES, ONES), 'path l2l: groups=3 does not divide channels=4'),
    (FastFourierConv(8, local_to_global=False, global_to_global=False), (ONES, ONES),
     'no path leads to the 4 channels of the global output'),
    (FourierUnit(8, groups=3), ONES, 'groups=3 does not divide spectrum channels=8'),
    (SpectralTransform(6, groups=4, lfu=False), ONES, 'groups=4 does not divide half features=3'),
    (SpectralTransform(8), ONES[:, :1], 'a map of 1 x 4 is too small for the local Fourier unit'),
    (LocalFourierUnit(8), ONES[:, :, :1], 'use lfu=False or a larger input'),
    (FourierUnit(8), ONES[0], r'FourierUnit got shape \(4, 4, 4\); it takes \[N, H, W, C\]'),
])
def test_bad_input_is_explained(layer, x, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    shapes(layer, x)


@pytest.mark.parametrize('dtype', ['complex64', 'int32', 'uint8'])
def test_complex_and_integer_maps_are_refused(dtype):
  x = ONES.astype(dtype)
  for layer, value in ((FourierUnit(4), x), (LocalFourierUnit(4), x), (SpectralTransform(4), x),
                       (FastFourierConv(8), (x, x))):
    with unchecked(), pytest.raises(TypeError, match=f'got {dtype} values; cast them'):
      shapes(layer, value)


def test_products_need_no_complex_numbers():
  """With 'dft' nothing complex and no FFT is left, forward or backward, for export and TPUs."""
  pair = random((1, 5, 6, 4)), random((1, 5, 6, 4), seed=1)
  for implementation, expected in (('dft', False), ('fft', True)):
    layer = FFCNormAct(8, fourier_implementation=implementation)
    step = functools.partial(gradient_step, layer, axis=())
    text = jax.jit(step).lower(drawn(layer, pair), pair).as_text()
    assert ('complex<' in text or 'stablehlo.fft' in text) == expected


def test_the_examples_of_the_documentation_run():
  text = (pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'ffc.md').read_text()
  namespace = {}
  for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
    exec(compile(block, 'ffc.md', 'exec'), namespace)
  assert namespace['logits'].shape == (2, 10)
  assert namespace['features'].shape == (2, 13, 15, 64)
  assert namespace['y'].shape == (1, 32, 32, 64)
