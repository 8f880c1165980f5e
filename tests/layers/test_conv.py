"""Every lowering of Conv gives lax's convolution, gradients included."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fcajax.layers.conv import Conv
from fcajax.ops.convolution import LOWERINGS, Window, choose, convolve, force_lowering
from fcajax.ops.target import target
from tests.helpers.unchecked import unchecked

# height, width, Cin, Cout, kernel, strides, padding, dilation, groups
CASES = {
    '1x1': (5, 7, 6, 8, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    '1x1 stride 2': (7, 6, 6, 8, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    '1x1 padded': (5, 5, 4, 4, (1, 1), (2, 1), ((1, 1), (0, 2)), (1, 1), 1),
    '3x3': (6, 9, 17, 5, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    '3x3 stride 2 odd': (9, 8, 18, 5, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    '3x3 dilated': (9, 10, 16, 5, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 1),
    '3x3 dilated stride': (11, 10, 3, 5, (3, 3), (2, 1), ((2, 1), (0, 3)), (2, 3), 1),
    '7x7 stem': (15, 14, 3, 6, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
    '1x5': (4, 9, 20, 3, (1, 5), (1, 2), ((0, 0), (2, 2)), (1, 1), 1),
    'groups': (6, 7, 12, 18, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    'groups stride 2': (7, 8, 192, 96, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 48),
    'groups 1x1': (3, 4, 8, 12, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 4),
    'wide groups': (4, 4, 160, 4, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    'map below the kernel': (2, 2, 32, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    'depthwise': (7, 6, 9, 9, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 9),
    'depthwise stride 2': (8, 7, 9, 9, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 9),
    'depthwise multiplier': (6, 6, 4, 8, (3, 3), (1, 1), ((1, 1), (1, 1)), (2, 2), 4),
}


def reference(x, kernel, window):
  return lax.conv_general_dilated(
      x, kernel, window.strides, window.padding, rhs_dilation=window.dilation,
      feature_group_count=window.groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def operands(case, dtype=np.float32):
  height, width, channels, features, size, strides, padding, dilation, groups = CASES[case]
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, height, width, channels)).astype(dtype)
  kernel = rng.standard_normal((*size, channels // groups, features)).astype(dtype)
  return x, kernel, Window(strides, padding, dilation, groups)


def by_definition(x, kernel, window):
  """The convolution as a plain sum over kernel positions and channels."""
  groups, (kh, kw, per_group, features) = window.groups, kernel.shape
  x = np.pad(x, ((0, 0), *window.padding, (0, 0)))
  (sh, sw), (dh, dw) = window.strides, window.dilation
  height = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
  width = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
  y = np.zeros((x.shape[0], height, width, features))
  for f in range(features):
    first = f // (features // groups) * per_group
    for p in range(height):
      for q in range(width):
        part = x[:, p * sh:p * sh + dh * (kh - 1) + 1:dh, q * sw:q * sw + dw * (kw - 1) + 1:dw,
                 first:first + per_group]
        y[:, p, q, f] = np.sum(part * kernel[..., f], axis=(1, 2, 3))
  return y


PAIRS = [(case, lowering) for case in CASES for lowering in LOWERINGS
         if not (lowering == 'split_gradient' and CASES[case][-1] > 1)]


@pytest.mark.parametrize('case, lowering', PAIRS)
def test_lowering_equals_the_convolution(case, lowering):
  x, kernel, window = operands(case)
  if lowering == 'conv':
    np.testing.assert_allclose(convolve(x, kernel, window, 'conv'),
                               by_definition(x, kernel, window), rtol=1e-4, atol=1e-4)
    return

  @jax.jit
  def both(x, kernel):
    out, pull = jax.vjp(lambda x, k: convolve(x, k, window, lowering), x, kernel)
    want, pull_want = jax.vjp(lambda x, k: reference(x, k, window), x, kernel)
    g = jnp.sin(jnp.arange(want.size, dtype=jnp.float32)).reshape(want.shape)
    return (out, *pull(g)), (want, *pull_want(g))
  for got, want in zip(*both(x, kernel)):
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize('case, lowering', [
    pair for pair in PAIRS if pair[0] in ('3x3', 'groups') and pair[1] != 'conv'])
def test_vmap_over_kernels_and_jvp_of_grad(case, lowering):
  x, kernel, window = operands(case)
  kernels = jnp.stack([kernel, kernel[::-1], 2 * kernel])

  def loss(convolution, k):
    return jnp.sum(jnp.sin(convolution(x, k)))
  ours = functools.partial(loss, lambda x, k: convolve(x, k, window, lowering))
  wanted = functools.partial(loss, lambda x, k: reference(x, k, window))

  @jax.jit
  def compare(kernels):
    one, other = kernels[:2]
    results = []
    for f, map_ in ((ours, jax.vmap), (wanted, lambda g: lambda k: jnp.stack([g(i) for i in k]))):
      results.append((map_(jax.grad(f))(kernels), jax.jvp(jax.grad(f), (one,), (other,))[1],
             jax.jvp(f, (one,), (other,))[1]))
    return results
  for got, want in zip(*compare(kernels)):
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize('lowering', LOWERINGS)
def test_bfloat16_stays_close_to_float32(lowering):
  case = 'groups' if lowering == 'blocks' else '3x3'
  x, kernel, window = operands(case)
  exact = reference(x, kernel, window)
  low = jnp.bfloat16

  def loss(x, k):
    y = convolve(x, k, window, lowering)
    return jnp.sum(y.astype(jnp.float32) ** 2), y
  (dx, dk), y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x.astype(low), kernel.astype(low))
  assert y.dtype == dx.dtype == dk.dtype == low
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.02 * np.abs(exact).max())


def test_shard_map_gives_the_whole_batch():
  x, kernel, window = operands('3x3')
  x = np.concatenate([x] * 4)
  mesh = jax.make_mesh((8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec
  for lowering in ('split_gradient', 'matmul'):
    def local(x, k, lowering=lowering):
      def loss(k):
        return lax.pmean(jnp.mean(convolve(x, k, window, lowering) ** 2), 'batch')
      return jax.grad(loss)(k)
    got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(spec('batch'), spec()),
                                out_specs=spec()))(x, kernel)
    want = jax.grad(lambda k: jnp.mean(reference(x, k, window) ** 2))(kernel)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_choice_by_shape():
  plain = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
  assert choose((8, 56, 56, 64), (1, 1, 64, 256), plain) == 'matmul'
  assert choose((8, 56, 56, 64), (3, 3, 64, 64), plain) == 'conv'
  assert choose((8, 2, 3, 64), (3, 3, 64, 64), plain) == 'matmul'
  assert choose((8, 3, 3, 64), (3, 3, 64, 64), plain) == 'conv'
  assert choose((8, 28, 28, 128), (3, 3, 128, 128), plain) == 'split_gradient'
  assert choose((8, 28, 28, 64), (3, 3, 1, 64), plain._replace(groups=64)) == 'matmul'
  assert choose((8, 28, 28, 64), (3, 3, 2, 64), plain._replace(groups=32)) == 'blocks'


def test_layer_has_the_parameters_and_results_of_flax(key):
  x = jax.random.normal(key, (2, 9, 8, 6))
  ours = Conv(8, (3, 5), strides=(2, 1), groups=2, use_bias=True, dilation=(1, 2))
  flax = nn.Conv(8, (3, 5), strides=(2, 1), feature_group_count=2, kernel_dilation=(1, 2),
                 padding=((1, 1), (4, 4)))
  variables = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(ours.init)(key, x))
  shapes = jax.tree.map(jnp.shape, jax.eval_shape(flax.init, key, x))
  assert jax.tree.map(jnp.shape, variables) == shapes
  got, want = jax.jit(lambda v: (ours.apply(v, x), flax.apply(v, x)))(variables)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize('mode, numpy_mode', [
    ('reflect', 'reflect'), ('replicate', 'edge'), ('circular', 'wrap')])
def test_padding_modes(mode, numpy_mode, key):
  x = jax.random.normal(key, (1, 5, 6, 2))
  layer = Conv(3, padding_mode=mode, padding=(1, 2))
  variables = layer.init(key, x)
  padded = np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), mode=numpy_mode)
  want = Conv(3, padding=0).apply(variables, padded)
  np.testing.assert_allclose(layer.apply(variables, x), want, atol=1e-5)


def test_kernels_start_he_normal_over_the_fan_out(key):
  variables = Conv(256).init(key, jnp.zeros((1, 4, 4, 64)))
  kernel = variables['params']['kernel']
  assert abs(float(kernel.std()) / np.sqrt(2 / (9 * 256)) - 1) < 0.02


def test_force_lowering_sets_what_auto_means(key):
  x = jnp.zeros((1, 4, 4, 4))
  layer = Conv(4, 1)
  variables = layer.init(key, x)

  apply = jax.jit(layer.apply)

  def primitives():  # the same jitted function each time: the lowering is a part of its key
    return str(jax.make_jaxpr(apply)(variables, x))
  with force_lowering('conv'):
    assert 'conv_general_dilated' in primitives()
  with force_lowering('matmul'):
    assert 'conv_general_dilated' not in primitives()
  with target('tpu'):
    assert 'conv_general_dilated' in primitives()
  with target('cpu'):
    assert 'conv_general_dilated' not in primitives()


def test_symbolic_batch_size_exports():
  from jax import export
  (batch,) = export.symbolic_shape('n')
  layer = Conv(4, 1)
  variables = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))
  exported = export.export(jax.jit(lambda x: layer.apply(variables, x)))(
      jax.ShapeDtypeStruct((batch, 4, 4, 4), 'float32'))
  x = np.ones((3, 4, 4, 4), np.float32)
  np.testing.assert_allclose(exported.call(x), layer.apply(variables, x), atol=1e-6)


@pytest.mark.parametrize('fields, message', [
    ({'groups': 3}, 'groups=3 must divide'),
    ({'kernel_size': 9, 'padding': 0}, 'does not fit into an input of 4 x 4'),
    ({'padding': 'SAME'}, "padding='SAME' must be"),
    ({'strides': (1, 1, 1)}, r'strides=\(1, 1, 1\) must be'),
    ({'padding_mode': 'edge'}, "padding_mode='edge' is not one of 'zeros'"),
    ({'lowering': 'cudnn'}, "lowering='cudnn' is not one of 'auto', 'conv'"),
    ({'groups': 2, 'lowering': 'split_gradient'}, 'for groups=1'),
])
def test_bad_fields_are_named(fields, message, key):
  with unchecked(), pytest.raises(ValueError, match=message):
    jax.eval_shape(Conv(4, **fields).init, key, jnp.zeros((1, 4, 4, 4)))
