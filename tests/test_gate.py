"""The frequency gate: reference logits, sampling, gradient, penalty, heat map and selection."""
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcajax.layers.gate import FrequencyGate, annealed
from fcajax.ops.coefficients import coefficient_subset
from fcajax.weights import names_dct


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
  result, state = FrequencyGate(dtype=jnp.bfloat16).apply(
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
  with pytest.raises(ValueError, match=message):
    FrequencyGate(**fields).init(jax.random.key(0), inputs)


def _tiny(gate=True):
  from fcajax.models.dct_resnet import DctResNet
  model = DctResNet((1,), block='basic', width=8, num_classes=3, coefficients='6S', gate=gate,
                    stage_strides=(1,))
  return model, model.init(jax.random.key(0), np.zeros((1, 4, 4, 6), np.float32))


def test_heat_map_counts_images_and_skips_padding(inputs, tmp_path):
  from fcajax.analysis import gate_heat_map as heat_maps
  model, variables = _tiny()
  # Y 0 follows its mean, Cb 0 stays shut, the others stay open.
  gate = jax.tree.map(np.array, variables['params']['gate'])
  gate['mix'] = {'kernel': np.eye(6, dtype=np.float32), 'bias': np.zeros(6, np.float32)}
  gate['logits_kernel'] = np.zeros((6, 2), np.float32)
  gate['logits_kernel'][0] = 0, 1
  gate['logits_bias'] = np.array([[0, 0], [0, 1], [0, 1], [0, 1], [1, 0], [0, 1]], np.float32)
  variables = {**variables, 'params': {**variables['params'], 'gate': gate}}
  mask = np.ones(8, np.float32)
  mask[6:] = 0
  padded = inputs[8:].copy()
  padded[6:] = np.nan
  heat_map = heat_maps.gate_heat_map(
      model, variables, [{'image': inputs[:8]}, {'image': padded, 'mask': mask}])
  assert heat_map['images'] == 14
  positive = (inputs[:14, ..., 0].mean((1, 2)) > 0).mean()
  np.testing.assert_allclose(heat_map['open_at_evaluation'], [positive, 1, 1, 1, 0, 1])
  # The gate's batch norm is as initialised: off - on of Y 0 is -relu(mean) / sqrt(1 + epsilon).
  margin = np.maximum(inputs[:14, ..., 0].mean((1, 2)), 0) / np.sqrt(1 + 1e-5)
  on, off = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
  np.testing.assert_allclose(
      heat_map['open_fraction'], [(1 / (1 + np.exp(-margin))).mean(), on, on, on, off, on],
      rtol=1e-5)
  blocks = heat_maps.as_blocks(heat_map)
  assert blocks.shape == (3, 8, 8) and np.isfinite(blocks).sum() == 6 and blocks[1, 0, 0] < 0.5

  heat_maps.save_heat_map(heat_map, tmp_path / heat_maps.FILE_NAME)
  _plot_and_select(tmp_path, heat_map)


def _plot_and_select(folder, heat_map):
  import argparse

  from fcajax.analysis import plot_gate, select
  parser = argparse.ArgumentParser()
  plot_gate.add_arguments(parser)
  assert plot_gate.run(parser.parse_args([str(folder)])) == 0
  assert (folder / 'gate_heat_map.png').stat().st_size > 5000
  parser = argparse.ArgumentParser()
  select.add_arguments(parser)
  assert select.run(parser.parse_args([str(folder), '--count', '4'])) == 0
  content = json.loads((folder / '4D.json').read_text())
  assert content['images'] == heat_map['images']
  chosen = coefficient_subset(str(folder / '4D.json'))
  assert chosen.spec == 'y:1,8,9;cb:;cr:0'
  assert chosen == coefficient_subset(f'4D:{folder}/gate_heat_map.json')
  with pytest.raises(ValueError, match=r'must end in \.json'):
    select.run(parser.parse_args([str(folder), '--count', '4', '--out', 'subset.txt']))


def test_heat_map_errors(inputs, tmp_path):
  import argparse

  from fcajax.analysis import plot_gate
  from fcajax.analysis.gate_heat_map import gate_heat_map
  model, variables = _tiny(gate=False)
  with pytest.raises(ValueError, match='has no gate; train one with gate=True'):
    gate_heat_map(model, variables, [{'image': inputs}])
  model, variables = _tiny()
  with pytest.raises(ValueError, match='no image to count gates over'):
    gate_heat_map(model, variables, [])
  parser = argparse.ArgumentParser()
  plot_gate.add_arguments(parser)
  with pytest.raises(ValueError, match='give the images to count over with --images'):
    plot_gate.run(parser.parse_args([str(tmp_path)]))
  with pytest.raises(ValueError, match=r'no image in .*looked for \.jpg'):
    plot_gate.run(parser.parse_args([str(tmp_path), '--images', str(tmp_path)]))


def test_plot_gate_takes_no_neighbours_heat_map(tmp_path, capsys):
  from fcajax import cli
  (tmp_path / 'gate_heat_map.json').write_text(json.dumps(
      {'coefficients': 'y:0,1;cb:0;cr:0', 'open_fraction': [0.9, 0.8, 0.7, 0.6]}))
  (tmp_path / 'plain.safetensors').write_bytes(b'weights')
  for name, message in (('plain.safetensors', 'with --images FOLDER'),
                        ('absent', "absent' does not exist"),
                        ('absent.json', "absent.json' does not exist")):
    assert cli.main(['plot', 'gate', str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
  assert not (tmp_path / 'gate_heat_map.png').exists()
  # The count of images is for the reader alone; a folder may leave its own heat map.
  for name in ('gate_heat_map.json', ''):
    assert cli.main(['plot', 'gate', str(tmp_path / name)]) == 0
    assert 'over an unknown number of images' in capsys.readouterr().out


def test_plot_gate_counts_the_images_that_can_be_read(tmp_path, capsys):
  from PIL import Image

  from fcajax import cli
  from fcajax.models.registry import create_model
  from fcajax.weights import save_safetensors
  options = {'stage_sizes': (1,), 'block': 'basic', 'width': 8, 'coefficients': '6S',
             'gate': True, 'stage_strides': (1,)}
  model = create_model('dct_resnet18', 2, **options)
  variables = jax.device_get(model.init(jax.random.key(0), np.zeros((1, 2, 2, 6), np.float32)))
  path, folder = tmp_path / 'w.safetensors', tmp_path / 'images'
  save_safetensors(path, variables, {
      'model': {'name': 'dct_resnet18', 'num_classes': 2, 'overrides': options},
      'class_names': ['a', 'b'],
      'preprocessing': {'image_size': 16, 'representation': 'dct', 'coefficients': '6S'}})
  folder.mkdir()
  for name in ('one.tif', 'two.webp', 'three.png'):
    Image.new('RGB', (20, 20), 'teal').save(folder / name)
  for name in ('broken.jpg', '._one.jpg'):
    (folder / name).write_text('no image')
  assert cli.main(['plot', 'gate', str(path), '--images', str(folder), '--batch-size', '2']) == 0
  streams = capsys.readouterr()
  assert 'over 3 images' in streams.out
  assert 'broken.jpg' in streams.err and '._one' not in streams.err


def test_select_refuses_weights(tmp_path, capsys):
  from fcajax import cli
  (tmp_path / 'w.safetensors').write_bytes(b'\xff\xfe')
  assert cli.main(['select', str(tmp_path / 'w.safetensors')]) == 2
  assert 'fcajax plot gate' in capsys.readouterr().err
