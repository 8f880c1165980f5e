"""One attention layer inside a user's own network, in Linen and in NNX."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.nnx import bridge

from fcajax.layers.attention import MultiSpectralAttention, resolve_attention


class OwnLinen(nn.Module):
  """A small classifier with frequency attention after its convolution."""

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Conv(16, (3, 3), name='conv')(images))
    x = MultiSpectralAttention(frequencies='top4', name='attention')(x)
    return nn.Dense(10, name='head')(x.mean((1, 2)))


class OwnNNX(nnx.Module):
  """The same classifier in NNX."""

  def __init__(self, rngs):
    self.conv = nnx.Conv(3, 16, (3, 3), rngs=rngs)
    self.attention = bridge.ToNNX(
        MultiSpectralAttention(frequencies='top4'), rngs=rngs).lazy_init(jnp.zeros((1, 8, 8, 16)))
    self.head = nnx.Linear(16, 10, rngs=rngs)

  def __call__(self, images):
    x = self.attention(nnx.relu(self.conv(images)))
    return self.head(x.mean((1, 2)))


def task(key):
  """Images whose label is a horizontal frequency: the plain average cannot see it."""
  labels = jnp.arange(16) % 2
  wave = jnp.cos(jnp.pi * (jnp.arange(8) + 0.5) * (1 + labels[:, None]) / 8)
  images = jnp.broadcast_to(wave[:, None, :, None], (16, 8, 8, 3))
  return images + 0.1 * jax.random.normal(key, images.shape), labels


def loss_of(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_linen_network_trains(key):
  images, labels = task(key)
  model = OwnLinen()
  variables = model.init(key, images)
  assert set(variables) == {'params'}
  assert set(variables['params']['attention']) == {'reduce', 'expand'}
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, state):
    loss, gradients = jax.value_and_grad(
        lambda p: loss_of(model.apply({'params': p}, images), labels))(params)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, loss, gradients
  params, state = variables['params'], optimizer.init(variables['params'])
  losses = []
  for _ in range(20):
    params, state, loss, gradients = step(params, state)
    losses.append(float(loss))
  assert losses[-1] < 0.5 * losses[0]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_nnx_network_trains(key):
  images, labels = task(key)
  model = OwnNNX(nnx.Rngs(0))
  state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  assert jax.tree.map(jnp.shape, state['attention']) == {
      'reduce': {'kernel': (16, 1)}, 'expand': {'kernel': (1, 16)}}
  optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer):
    loss, gradients = nnx.value_and_grad(lambda m: loss_of(m(images), labels))(model)
    optimizer.update(model, gradients)
    return loss
  losses = [float(step(model, optimizer)) for _ in range(20)]
  assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize('name', ['se', 'fca', 'eca', 'cbam', 'gc'])
def test_nnx_gives_what_linen_gives(key, name):
  x = jax.random.normal(key, (2, 9, 8, 16))
  layer = resolve_attention(name)()
  variables = layer.init(key, x)
  wrapped = bridge.ToNNX(layer, rngs=nnx.Rngs(0)).lazy_init(x)
  for collection in variables.values():
    nnx.update(wrapped, collection)
  np.testing.assert_allclose(wrapped(x), layer.apply(variables, x), rtol=1e-6, atol=1e-6)
