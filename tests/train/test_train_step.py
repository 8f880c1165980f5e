"""Metrics, losses, optimisers, schedules and the step against their definitions."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fcajax.configs import common
from fcajax.errors import UserError
from fcajax.tasks import metrics
from fcajax.tasks.classification import Classification, cross_entropy, top_k_correct
from fcajax.train import optimizer
from fcajax.train import train_state as state
from fcajax.train import train_step as step
from tests.helpers import tiny


def optimizer_config(**changes):
  config = common.get_config().optimizer
  config.learning_rate_batch = 0
  config.update(changes)
  return config


def make_step(model, config=None, *, freeze='', total_steps=10, seed=0, label_smoothing=0.0,
              **options):
  """(a jitted step on one device, its first state, a batch)."""
  config = config or optimizer_config()
  task = Classification(tiny.make_config(label_smoothing=label_smoothing), tiny.TinyPipeline())
  tx = optimizer.make_optimizer(config, freeze)
  schedule = optimizer.make_schedule(
      config, steps_per_epoch=5, total_steps=total_steps, batch_size=24)
  function = step.make_train_step(
      model, task, tx, schedule, total_steps=total_steps, freeze=freeze, **options)
  first = state.create_state(
      model, tx, [jnp.zeros((1, 8, 8, 3))], seed=seed, ema=bool(options.get('ema_decay')))
  images, labels = tiny.make_images(24)
  return jax.jit(function), first, {'image': jnp.asarray(images), 'label': jnp.asarray(labels)}


def test_cross_entropy_with_label_smoothing():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(6, 5)).astype(np.float32), np.array([0, 1, 2, 3, 4, 0])
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  targets = 0.9 * np.eye(5)[labels] + 0.1 / 5
  np.testing.assert_allclose(
      cross_entropy(logits, labels, 0.1), -(targets * log).sum(-1), rtol=1e-5)


def test_top_k_and_masks():
  logits = jnp.array([[3., 2., 1.], [1., 1., 0.], [0., 1., 2.], [jnp.nan, 0., 0.]])
  labels = jnp.array([1, 1, 2, 0])
  assert top_k_correct(logits, labels, 1).tolist() == [0, 0, 1, 0]
  assert top_k_correct(logits, labels, 2).tolist() == [1, 1, 1, 0]
  assert top_k_correct(logits, labels, 5).tolist() == [1, 1, 1, 0]
  mask = jnp.array([1., 0., 1., 0.])
  first = metrics.averages(mask, accuracy=jnp.array([1., 5., 0., 5.]))
  second = metrics.averages(jnp.zeros(4), accuracy=jnp.ones(4))
  assert metrics.compute(metrics.merge(first, second)) == {'accuracy': 0.5}
  assert metrics.compute(second) == {}


def test_first_step_that_is_not_finite():
  values = [metrics.FirstNotFinite.from_values(i, x) for i, x in
            enumerate([jnp.ones(()), jnp.inf * jnp.ones(()), jnp.nan * jnp.ones(())])]
  total = {'not_finite': metrics.FirstNotFinite.empty()}
  assert metrics.compute(total) == {'not_finite': None}
  for value in values:
    total = metrics.merge(total, {'not_finite': value})
  assert metrics.compute(total) == {'not_finite': 1}


PARAMS = {'conv': {'kernel': np.float32([[1., -2.], [3., 4.]])}, 'norm': {'scale': np.ones(2, 'f')}}
GRADS = [jax.tree.map(lambda p, s=s: np.float32(s * p + 0.1 * s), PARAMS) for s in (1., -.5, 2.)]


def updates(config, freeze=''):
  """Parameters after three updates at rate 0.1."""
  tx = optimizer.make_optimizer(config, freeze)
  params, opt_state = PARAMS, tx.init(PARAMS)
  for grads in GRADS:
    direction, opt_state = tx.update(grads, opt_state, params)
    params = jax.tree.map(lambda p, d: p - 0.1 * d, params, direction)
  return params


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_is_pytorchs(nesterov):
  """g = grad + decay p; b = momentum b + g; p -= rate b (Nesterov: p -= rate (g + momentum b))."""
  config = optimizer_config(momentum=0.9, weight_decay=0.01, nesterov=nesterov)
  p, b = PARAMS['conv']['kernel'].astype(np.float64), 0
  for grads in GRADS:
    g = grads['conv']['kernel'] + 0.01 * p
    b = 0.9 * b + g
    p = p - 0.1 * (g + 0.9 * b if nesterov else b)
  np.testing.assert_allclose(updates(config)['conv']['kernel'], p, rtol=1e-6)


def test_sgd_against_pytorch():
  torch = pytest.importorskip('torch', reason='compares with PyTorch, which is not installed')
  parameter = torch.nn.Parameter(torch.tensor(PARAMS['conv']['kernel']))
  sgd = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.01)
  for grads in GRADS:
    parameter.grad = torch.tensor(grads['conv']['kernel'])
    sgd.step()
  np.testing.assert_allclose(
      updates(optimizer_config(weight_decay=0.01))['conv']['kernel'],
      parameter.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize('name, reference', [
    ('adamw', lambda mask: optax.adamw(0.1, 0.9, 0.999, weight_decay=0.01, mask=mask)),
    ('lamb', lambda mask: optax.lamb(0.1, 0.9, 0.999, weight_decay=0.01, mask=mask)),
])
@pytest.mark.parametrize('decay_mask', ['all', 'kernels'])
def test_adamw_and_lamb(name, reference, decay_mask):
  mask = None if decay_mask == 'all' else {'conv': {'kernel': True}, 'norm': {'scale': False}}
  tx = reference(mask)
  params, opt_state = PARAMS, tx.init(PARAMS)
  for grads in GRADS:
    direction, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, direction)
  ours = updates(optimizer_config(name=name, weight_decay=0.01, decay_mask=decay_mask))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), ours, params)


def test_decay_mask_clipping_and_freezing():
  plain = updates(optimizer_config(weight_decay=0.0))
  decayed = updates(optimizer_config(weight_decay=0.1, decay_mask='kernels'))
  np.testing.assert_array_equal(decayed['norm']['scale'], plain['norm']['scale'])
  assert np.all(decayed['conv']['kernel'] != plain['conv']['kernel'])
  frozen = updates(optimizer_config(weight_decay=0.1), freeze='conv')
  np.testing.assert_array_equal(frozen['conv']['kernel'], PARAMS['conv']['kernel'])
  assert np.all(frozen['norm']['scale'] != PARAMS['norm']['scale'])
  clipped = updates(optimizer_config(weight_decay=0.0, momentum=0.0, clip_norm=1e-3))
  moved = sum(np.sum((a - b) ** 2) for a, b in zip(
      jax.tree.leaves(clipped), jax.tree.leaves(PARAMS)))
  assert moved ** 0.5 <= 3 * 0.1 * 1e-3 * 1.01


@pytest.mark.parametrize('changes, message', [
    ({'name': 'adam'}, "optimizer.name='adam'; use one of"),
    ({'decay_mask': 'none'}, "decay_mask='none'; use one of"),
])
def test_unknown_optimizers(changes, message):
  with pytest.raises(UserError, match=message):
    optimizer.make_optimizer(optimizer_config(**changes))
  with pytest.raises(UserError, match='is not a regular expression'):
    optimizer.frozen_mask(PARAMS, '(conv')


def rates(steps, total=100, **changes):
  schedule = optimizer.make_schedule(
      optimizer_config(learning_rate=0.4, **changes), steps_per_epoch=10, total_steps=total,
      batch_size=64)
  return [float(schedule(s)) for s in steps]


def test_schedules():
  np.testing.assert_allclose(
      rates([0, 50, 100], learning_rate_batch=256), [0.1, 0.05, 0], atol=1e-7)
  np.testing.assert_allclose(
      rates([0, 4, 9, 10, 55, 100], warmup_epochs=1.0), [0.04, 0.2, 0.4, 0.4, 0.2, 0], atol=1e-6)
  np.testing.assert_allclose(
      rates([0, 29, 30, 59, 60, 99], schedule='step', boundaries=(3, 6)),
      [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-6)
  np.testing.assert_allclose(rates([0, 99], schedule='constant'), [0.4, 0.4], rtol=1e-6)
  with pytest.raises(UserError, match=r'schedule=.linear.; use one of'):
    rates([0], schedule='linear')
  with pytest.raises(UserError, match='takes 100 steps, but the whole run has 100'):
    rates([0], warmup_epochs=10.0)


def test_step_is_the_gradient_step_of_the_loss():
  """Plain gradient descent on cross entropy + sown losses, written out."""
  model = tiny.TinyNet(auxiliary=0.3)
  config = optimizer_config(
      momentum=0.0, weight_decay=0.0, schedule='constant', learning_rate=0.2)
  run, first, batch = make_step(model, config, label_smoothing=0.1, ema_decay=0.5)

  def loss(params):
    logits, new = model.apply(
        {'params': params, 'batch_stats': first.batch_stats}, tiny.normalize(batch['image']),
        train=True, mutable=['batch_stats', 'losses'], rngs={'dropout': jax.random.key(0)})
    return cross_entropy(logits, batch['label'], 0.1).mean() + new['losses']['size'][0]

  value, grads = jax.value_and_grad(loss)(first.params)
  expected = jax.tree.map(lambda p, g: p - 0.2 * g, first.params, grads)
  second, measured = run(first, batch)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), second.params, expected)
  values = metrics.compute(measured)
  np.testing.assert_allclose(values['loss'], value, rtol=1e-5)
  np.testing.assert_allclose(values['gradient_norm'], optax.tree.norm(grads), rtol=1e-5)
  assert values['auxiliary_loss'] > 0 and values['not_finite'] is None
  # At the first step the average decays by (1 + 0) / (10 + 0).
  jax.tree.map(lambda e, a, b: np.testing.assert_allclose(e, 0.1 * a + 0.9 * b, atol=1e-6),
               second.ema, first.params, expected)
  assert second.step == 1 and jnp.array_equal(second.rng, first.rng)
  assert second.variables()['params'] is second.ema


def test_frozen_layers_stay_and_normalise_with_their_statistics():
  model = tiny.TinyNet(depth=2)
  run, first, batch = make_step(model, freeze='^(conv0|norm0)/')
  first = first.replace(batch_stats=jax.tree.map(lambda x: x + 0.5, first.batch_stats))
  second, measured = run(first, batch)
  for tree in ('params', 'batch_stats'):
    before, after = getattr(first, tree), getattr(second, tree)
    jax.tree.map(np.testing.assert_array_equal, before['norm0'], after['norm0'])
    assert np.all(before['norm1'][min(before['norm1'])] != after['norm1'][min(before['norm1'])])
  np.testing.assert_array_equal(first.params['conv0']['kernel'], second.params['conv0']['kernel'])
  # The loss is that of a network whose first norm is in inference mode.
  shifted = first.replace(batch_stats={
      **first.batch_stats, 'norm0': jax.tree.map(lambda x: x + 1, first.batch_stats['norm0'])})
  other = run(shifted, batch)[1]
  assert metrics.compute(other)['loss'] != metrics.compute(measured)['loss']


def test_bfloat16_computes_with_float32_parameters():
  run, first, batch = make_step(tiny.TinyNet(dtype=jnp.bfloat16))
  second, measured = run(first, batch)
  assert {x.dtype for x in jax.tree.leaves((second.params, second.batch_stats))} == {
      jnp.dtype('float32')}
  reference = make_step(tiny.TinyNet())[0](first, batch)[1]
  np.testing.assert_allclose(
      metrics.compute(measured)['loss'], metrics.compute(reference)['loss'], rtol=0.02)


def test_progress_reaches_a_model_that_asks_for_it():
  class Scheduled(tiny.TinyNet):

    @tiny.nn.compact
    def __call__(self, x, train=False, progress=0.0):
      self.sow('losses', 'progress', jnp.asarray(progress))
      return super().__call__(x, train)

  run, current, batch = make_step(Scheduled(use_norm=False), total_steps=4)
  seen = []
  for _ in range(3):
    current, measured = run(current, batch)
    seen.append(metrics.compute(measured)['auxiliary_loss'])
  assert seen == [0, 0.25, 0.5]
