"""The frequency gate: reference logits, sampling, gradient and penalty."""
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcajax.layers.gate import FrequencyGate, annealed
from fcajax.weights.torch import names_dct
from tests.helpers.unchecked import unchecked


@pytest.fixture(scope='module')
def inputs():
  return np.random.default_rng(0).normal(size=(16, 4, 4, 6)).astype(np.float32)


@pytest.fixture(scope='module')
def variables(inputs):
  return FrequencyGate().init(jax.random.key(0), inputs)


def _train(variables, inputs, seed=1, **kwargs):
  gate = FrequencyGate(**kwargs)
  return gate.apply(variables, inputs, train=True, rngs={'gate': jax.random.key(seed)},
                    mutable=['losses', 'intermediates', 'batch_stats'])


def test_reference_logits(data_dir):
  sys.path.insert(0, str(data_dir))
  from draw_weights import model_input, torch_state
  files = str(data_dir / 'dct.json'), str(data_dir / 'dct.npz')
  x = model_input(files[0], 'gate192')
  gate = FrequencyGate()
  shapes = traverse_util.flatten_dict(jax.eval_shape(gate.init, jax.random.key(0), x))
  flat = {}
  for key, value in torch_state(*files, 'gate192').items():
    target = names_dct.target(key, None)
    if target is not names_dct.IGNORE:
      path = (target.path[0], *target.path[2:])  # without 'gate', its name inside a network
      flat[path] = target.transform(value, shapes[path].shape)
  assert flat.keys() == shapes.keys()
  variables = traverse_util.unflatten_dict(flat)
  result, state = gate.apply(variables, x, mutable=['intermediates'])
  expected = np.load(files[1])['gate192/logits']
  logits = state['intermediates']['logits'][0]
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
  opened = expected[..., 1] > expected[..., 0]
  np.testing.assert_array_equal(result, x * opened[:, None, None])


def test_starts_open_with_the_published_probability(facts, inputs, variables):
  published = facts['dct_input']['gate_init']
  _, state = FrequencyGate().apply(variables, inputs, mutable=['intermediates'])
  logits = np.asarray(state['intermediates']['logits'][0])
  np.testing.assert_allclose(logits[..., 0], published['bias_off'], atol=0.02)
  np.testing.assert_allclose(logits[..., 1], published['bias_on'], atol=0.02)
  kernel = np.asarray(FrequencyGate().init(
      jax.random.key(0), np.zeros((1, 1, 1, 192)))['params']['logits_kernel'])
  assert abs(kernel.std() / published['last_weight_std'] - 1) < 0.15
  samples = [np.asarray(_train(variables, inputs, seed)[0]) != 0 for seed in range(40)]
  assert abs(np.mean(samples) - published['p_on']) < 0.02


def test_evaluation_is_deterministic_and_samples_on_request(inputs, variables):
  gate = FrequencyGate()
  np.testing.assert_array_equal(gate.apply(variables, inputs), inputs)  # all on at the start
  sampled = [gate.apply(variables, inputs, sample=True, rngs={'gate': jax.random.key(seed)})
             for seed in (1, 1, 2)]
  np.testing.assert_array_equal(sampled[0], sampled[1])
  assert (np.asarray(sampled[0]) != np.asarray(sampled[2])).any()


def test_a_channel_is_open_or_closed_as_a_whole(inputs, variables):
  result, state = _train(variables, inputs)
  gates = np.asarray(state['intermediates']['open'][0])
  assert set(np.unique(gates)) == {0, 1}
  np.testing.assert_allclose(result, inputs * gates[:, None, None], rtol=1e-6)


def test_gradient_is_that_of_the_soft_sample(inputs, variables):
  """d penalty / d bias by hand: sigmoid'(margin / t) / t of every gate, straight through."""
  temperature = 0.7

  def penalty(params):
    _, state = _train({**variables, 'params': params}, inputs, temperature=temperature,
                      penalty=1.0)
    return state['losses']['gate'][0], state['intermediates']

  gradient, intermediates = jax.grad(penalty, has_aux=True)(variables['params'])
  logits = intermediates['logits'][0]

  def soft_sum(logits, seed=1):
    # The noise of the layer, through the same stream.
    class Noise(FrequencyGate):
      def __call__(self):
        return jax.random.logistic(self.make_rng('gate'), logits.shape[:-1])
    noise = Noise().apply({}, rngs={'gate': jax.random.key(seed)})
    margin = logits[..., 1] - logits[..., 0] + noise
    return jax.nn.sigmoid(margin / temperature).sum(-1).mean()

  expected = jax.grad(soft_sum)(logits).sum(0)
  np.testing.assert_allclose(gradient['logits_bias'], expected, rtol=1e-4)


@pytest.mark.parametrize('reduction, factor', [('sum', 1.0), ('mean', 1 / 6)])
def test_penalty(inputs, variables, reduction, factor):
  _, state = _train(variables, inputs, penalty=0.3, penalty_reduction=reduction)
  opened = np.asarray(state['intermediates']['open'][0]).sum(-1).mean()
  np.testing.assert_allclose(state['losses']['gate'][0], 0.3 * factor * opened, rtol=1e-5)


def test_no_penalty_in_evaluation(inputs, variables):
  _, state = FrequencyGate().apply(variables, inputs, mutable=['losses'])
  assert 'losses' not in state


def test_penalty_alone_closes_the_gates(inputs, variables):
  import optax
  optimizer = optax.sgd(0.5)

  @jax.jit
  def step(params, state, key):
    def loss(params):
      _, updates = FrequencyGate(penalty=1.0).apply(
          {**variables, 'params': params}, inputs, train=True, mutable=['losses', 'batch_stats'],
          rngs={'gate': key})
      return updates['losses']['gate'][0]
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  params = variables['params']
  state = optimizer.init(params)
  for i in range(60):
    params, state = step(params, state, jax.random.key(i))
  assert not np.asarray(FrequencyGate().apply({**variables, 'params': params}, inputs)).any()


def test_temperature_schedule():
  assert annealed(2.0, None) == annealed((2.0, 0.5), None) == 2.0
  np.testing.assert_allclose(
      [annealed((2.0, 0.5), p) for p in (-1.0, 0.0, 0.5, 1.0, 2.0)], [2, 2, 1, 0.5, 0.5])


def test_float32_inside_bfloat16(inputs, variables):
  x = jnp.asarray(inputs, jnp.bfloat16)
  result, state = FrequencyGate().apply(
      variables, x, train=True, mutable=['intermediates', 'losses', 'batch_stats'],
      rngs={'gate': jax.random.key(1)})
  assert result.dtype == jnp.bfloat16
  for leaf in jax.tree.leaves(dict(state)):
    assert leaf.dtype == jnp.float32


@pytest.mark.parametrize('fields, message', [
    ({'penalty_reduction': 'max'}, "penalty_reduction='max' is unknown"),
    ({'temperature': 0.0}, 'must be a positive number'),
    ({'temperature': (1.0, 2.0, 3.0)}, 'or a pair'),
])
def test_errors(inputs, fields, message):
  with unchecked(), pytest.raises(ValueError, match=message):
    FrequencyGate(**fields).init(jax.random.key(0), inputs)
