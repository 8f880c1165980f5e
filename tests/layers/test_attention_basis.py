"""Multi-spectral attention with other filters: drawn, learned, or given from outside."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fcajax.layers.attention import MultiSpectralAttention, SqueezeExcite, basis_collection
from fcajax.ops.dct import drawn_basis, multispectral_basis
from fcajax.ops.pooling import adaptive_average_pool
from fcajax.selection.frequencies import frequency_indices


class TwoStages(nn.Module):
  """Attention at two sizes, the second pooled to 7 x 7."""

  @nn.compact
  def __call__(self, x, train=False):
    x = MultiSpectralAttention(frequencies='top2', reduction=2, name='first')(x, train=train)
    x = nn.max_pool(x, (2, 2), (2, 2))
    return MultiSpectralAttention(reduction=2, dct_size=7, normalization='mean',
                                  name='second')(x, train=train)


def gate(layer, variables, x):
  return layer.apply(variables, x, mutable=['intermediates'])[1]['intermediates']['gate'][0]


@pytest.mark.parametrize('kind', ['random', 'orthogonal'])
@pytest.mark.parametrize('shape', [(2, 7, 7, 16), (2, 12, 9, 16)])
def test_fixed_drawn_filters(key, kind, shape):
  x = jax.random.normal(key, shape)
  layer = MultiSpectralAttention(basis=kind, seed=3, dct_size=7, reduction=2)
  variables = layer.init(key, x)
  assert set(variables['params']) == {'reduce', 'expand'}
  z = jnp.einsum('nhwc,hwc->nc', adaptive_average_pool(x, (7, 7)), drawn_basis(7, 7, 16, kind, 3))
  hidden = nn.relu(z @ variables['params']['reduce']['kernel'])
  expected = nn.sigmoid(hidden @ variables['params']['expand']['kernel'])
  np.testing.assert_allclose(gate(layer, variables, x), expected, rtol=1e-5)
  # One filter a channel: the number of frequencies plays no part.
  assert layer.apply(layer.init(key, x[..., :9]), x[..., :9]).shape == (*shape[:3], 9)


@pytest.mark.parametrize('kind', ['dct', 'random', 'orthogonal'])
@pytest.mark.parametrize('shape', [(2, 14, 14, 32), (2, 20, 17, 32)])
def test_learned_filters_start_as_the_fixed_ones(key, kind, shape):
  x = jax.random.normal(key, shape)
  fixed = MultiSpectralAttention(basis=kind, dct_size=14, normalization='mean')
  learned = fixed.clone(learnable=True)
  variables = learned.init(key, x)
  assert variables['params']['basis'].shape == (14, 14, 32)
  dense = {k: variables['params'][k] for k in ('reduce', 'expand')}
  np.testing.assert_allclose(learned.apply(variables, x), fixed.apply({'params': dense}, x),
                             rtol=1e-5, atol=1e-6)
  gradient = jax.grad(lambda v: (learned.apply(v, x)**2).sum())(variables)['params']['basis']
  assert np.abs(gradient).max() > 0 and np.isfinite(gradient).all()


def test_learned_filters_have_one_size(key):
  x = jnp.ones((1, 8, 8, 16))
  layer = MultiSpectralAttention(learnable=True)
  variables = layer.init(key, x)
  with pytest.raises(ValueError, match=r'learned basis is 8 x 8 x 16, the input calls for '
                     r'10 x 9 x 16; set dct_size=\(8, 8\)'):
    layer.apply(variables, jnp.ones((1, 10, 9, 16)))
  pooling = layer.clone(dct_size=(8, 8))
  assert pooling.apply(variables, jnp.ones((1, 10, 9, 16))).shape == (1, 10, 9, 16)


@pytest.mark.parametrize('shape, size', [((2, 14, 14, 32), None), ((2, 20, 17, 32), 14)])
@pytest.mark.parametrize('grouped', [False, True])
def test_given_filters_replace_the_constant(key, shape, size, grouped):
  x = jax.random.normal(key, shape)
  wanted = MultiSpectralAttention(frequencies='bot4', dct_size=size, normalization='mean')
  variables = wanted.init(key, x)
  # The layer's own frequencies do not even fit its channels, and are not looked at.
  layer = MultiSpectralAttention(frequencies='top7', dct_size=size, normalization='mean')
  basis = multispectral_basis(14, 14, frequency_indices('bot4'), 4 if grouped else 32)
  np.testing.assert_allclose(
      layer.apply({**variables, 'dct': {'basis': basis}}, x), wanted.apply(variables, x),
      rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match='channels=32 does not split into 5'):
    layer.apply({**variables, 'dct': {'basis': np.zeros((14, 14, 5))}}, x)


def test_vmapped_filters_equal_separate_networks(key):
  model, x = TwoStages(), jax.random.normal(key, (2, 28, 20, 16))
  variables = model.init(key, x)
  candidates = [[(0, 0)], [(6, 3)], [(2, 5), (0, 1)]]
  sets = [basis_collection(model, c, x, train=False) for c in candidates]
  assert jax.tree.map(np.shape, sets[0]) == {
      'first': {'basis': (28, 20, 16)}, 'second': {'basis': (7, 7, 16)}}
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)

  def apply(dct, x):
    return model.apply({**variables, 'dct': dct}, x, train=False)
  together = jax.jit(jax.vmap(apply, in_axes=(0, None)))(stacked, x)
  gradients = jax.vmap(jax.grad(lambda x, dct: (apply(dct, x)**2).sum()), in_axes=(None, 0))(
      x, stacked)
  for i, candidate in enumerate(candidates):
    class Fixed(nn.Module):
      candidate: tuple

      @nn.compact
      def __call__(self, x):
        x = MultiSpectralAttention(frequencies=self.candidate, reduction=2, name='first')(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return MultiSpectralAttention(frequencies=self.candidate, reduction=2, dct_size=7,
                                      normalization='mean', name='second')(x)
    fixed = Fixed(tuple(candidate))
    np.testing.assert_allclose(together[i], fixed.apply(variables, x), rtol=1e-5, atol=1e-6)
    expected = jax.grad(lambda x, fixed=fixed: (fixed.apply(variables, x)**2).sum())(x)
    np.testing.assert_allclose(gradients[i], expected, rtol=1e-4, atol=1e-5)


def test_filters_of_a_network_by_shape_alone():
  model, x = TwoStages(), jax.ShapeDtypeStruct((1, 28, 28, 16), jnp.float32)
  found = basis_collection(model, 'low8', x, train=False)
  np.testing.assert_array_equal(found['first']['basis'], multispectral_basis(
      28, 28, frequency_indices('low8'), 16))
  with pytest.raises(ValueError, match='first: channels=16 does not split into 49 frequencies'):
    basis_collection(model, 'all', x, train=False)
  small = jax.ShapeDtypeStruct((1, 4, 28, 16), jnp.float32)
  with pytest.raises(ValueError, match=r'first: frequency \(6, 0\).* 4 x 28|first: .* at 4 x 28'):
    basis_collection(model, [(1, 0), (2, 0)], small, train=False)
  with pytest.raises(ValueError, match='SqueezeExcite has no MultiSpectralAttention layer'):
    basis_collection(SqueezeExcite(), 'top1', x)
  with pytest.raises(ValueError, match='must be arrays'):
    basis_collection(model, 'top1', x, False)
