"""Fine-tunes many frequency candidates together: one program over an axis of runs."""
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from fcajax.layers.attention import basis_collection
from fcajax.layers.conv_lowering import force_lowering
from fcajax.train import metrics
from fcajax.train.errors import TrainingDiverged, UserError
from fcajax.train.state import TrainState
from fcajax.train.step import make_train_step

BATCHING = ('auto', 'vmap', 'loop')
_AXIS = 'run'


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuning:
  """What every candidate goes through; candidates differ in their DCT filters alone.

  Attributes:
    model: a network with multi-spectral attention.
    optimizer: from `fcajax.train.optimizer.make_optimizer`.
    schedule: update number -> learning rate.
    steps: updates.
    transform: uint8 images `[N, h, w, 3]` -> input of the model.
    augment: None, or (key, uint8 images) -> uint8 images.
    label_smoothing: of the loss.
    accumulate_steps, freeze: as `fcajax.train.step.make_train_step` takes them.
    batching: 'vmap' maps one program over candidates and seeds; 'loop' runs them one after
      another in a program of one candidate, which keeps the plain convolutions that `vmap` turns
      into grouped ones; 'auto' is 'loop' on a CPU and 'vmap' elsewhere.
    devices: the candidates are spread over these; None is all of JAX's.
  """
  model: Any
  optimizer: Any
  schedule: Callable
  steps: int
  transform: Callable
  augment: Callable | None = None
  label_smoothing: float = 0.0
  accumulate_steps: int = 1
  freeze: str = ''
  batching: str = 'auto'
  devices: Any = None

  def __post_init__(self):
    if self.batching not in BATCHING:
      raise UserError(f'config.search.batching={self.batching!r}; use one of {BATCHING}')

  # Compiled once for all groups of candidates.

  @functools.cached_property
  def prepare(self):
    """(keys `[S]`, step, uint8 `[S, B, h, w, 3]`) -> inputs, each seed augmented by its key."""
    def one(key, step, images):
      if self.augment is not None:
        key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
        images = self.augment(jax.random.fold_in(key, 0x5EA), images)
      return self.transform(images)
    return jax.jit(jax.vmap(one, (0, None, 0)))

  @functools.cached_property
  def prepare_evaluation(self):
    """uint8 `[B, h, w, 3]` -> inputs."""
    return jax.jit(self.transform)

  @functools.cached_property
  def programs(self):
    """(update, evaluation) of one run."""
    return (jax.jit(functools.partial(_train_one, self), donate_argnums=0),
            jax.jit(functools.partial(_evaluate_one, self)))

  @functools.cached_property
  def mapped_programs(self):
    """(update, evaluation) of many runs, over the devices of `mesh`."""
    def train(state, filters, seed, batch):
      own = jax.tree.map(lambda leaf: leaf[seed], batch)
      with _lowering(self.mesh):
        return _train_one(self, state, filters, own)

    def evaluate(state, filters, batch):
      with _lowering(self.mesh):
        return _evaluate_one(self, state, filters, batch)

    def over(function, axes):
      # Runs never meet, so no device waits for another: there is no collective, and no gradient
      # across the axis, and so nothing for check_vma to insert.
      return jax.shard_map(
          jax.vmap(function, axes), mesh=self.mesh, out_specs=P(_AXIS), check_vma=False,
          in_specs=tuple(P() if axis is None else P(_AXIS) for axis in axes))
    return (jax.jit(over(train, (0, 0, 0, None)), donate_argnums=0),
            jax.jit(over(evaluate, (0, 0, None))))

  @functools.cached_property
  def mesh(self):
    return jax.sharding.Mesh(np.array(self.devices or jax.devices()), (_AXIS,))


class _WithFilters:
  """The network with its DCT filters filled in: what the train step takes as a model."""

  def __init__(self, model, filters):
    self._model, self._filters = model, filters

  def apply(self, variables, *args, **kwargs):
    return self._model.apply({**variables, 'dct': self._filters}, *args, **kwargs)


def stack(trees):
  """Trees of equal structure -> one tree with a new leading axis."""
  return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def initial_states(tuning, base, seeds, sample):
  """The states that all candidates start from: the base's weights, attention drawn anew.

  Args:
    tuning: `FineTuning`.
    base: variables of the network without attention.
    seeds: ints; each draws the attention's weights.
    sample: an input of the model, `[1, H, W, C]`; only its shape matters.

  Returns:
    `TrainState` whose leaves have a leading axis of seeds.

  Raises:
    UserError: the base is of another architecture; names what does not fit.
  """
  def draw(key):
    init_key, run_key = jax.random.split(key)
    fresh = tuning.model.init(init_key, jnp.zeros(sample.shape, sample.dtype), train=False)
    params = graft(fresh['params'], base['params'])
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params,
        batch_stats=graft(fresh.get('batch_stats', {}), base.get('batch_stats', {})),
        opt_state=tuning.optimizer.init(params), rng=jax.random.key_data(run_key))
  draw = jax.jit(draw)
  return stack([draw(jax.random.key(seed)) for seed in seeds])


def graft(fresh, base):
  """`fresh` with every leaf outside attention replaced by the base's.

  Raises:
    UserError: a leaf of either that has no partner in the other, or another shape.
  """
  old = _by_path(base)
  new = _by_path(fresh)
  wanted = {path for path in new if 'attention' not in path}
  problems = [f'{"/".join(path)} is missing in the base' for path in sorted(wanted - old.keys())]
  problems += [f'{"/".join(path)} is in the base alone' for path in sorted(old.keys() - wanted)]
  problems += [f'{"/".join(path)} is {old[path].shape} in the base, {new[path].shape} here'
               for path in sorted(wanted & old.keys()) if old[path].shape != new[path].shape]
  if problems:
    more = f', and {len(problems) - 5} more' if len(problems) > 5 else ''
    raise UserError('the base network does not fit the model that is searched: '
                    f'{"; ".join(problems[:5])}{more}. It must be the same network without '
                    'attention, with the same classes')

  def choose(path, leaf):
    keys = tuple(part.key for part in path)
    return jnp.asarray(old[keys]) if keys in wanted else leaf
  return jax.tree.map_with_path(choose, fresh)


def _by_path(tree):
  return {tuple(part.key for part in path): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def candidate_filters(model, candidates, sample):
  """The filters of all attention layers, for each candidate (a list of (u, v)), stacked."""
  return stack([basis_collection(model, list(candidate), sample, train=False)
                for candidate in candidates])


def fine_tune(tuning, states, candidates, data, sample):
  """Fine-tunes every candidate from every seed's state.

  All candidates of a seed see the same batches in the same order, with the same augmentation;
  seed s of S takes batches s, S + s, 2 S + s, ... of the training stream, which starts anew with
  every call.

  Args:
    tuning: `FineTuning`.
    states: of `initial_states`; S seeds.
    candidates: lists of (u, v).
    data: has `train_iterator()`, as `input_pipeline.Pipeline`.
    sample: an input of the model, `[1, H, W, C]`.

  Returns:
    An object with `variables()`, the trained `{'params', 'batch_stats'}` with leading axes
    `[len(candidates), S]`, for `held_out_accuracy`.

  Raises:
    TrainingDiverged: a run whose last loss is not finite.
  """
  filters = candidate_filters(tuning.model, candidates, sample)
  runner = make_runner(tuning, states, filters, len(candidates))
  seeds = _seeds(states)
  # The streams of augmentation are the seeds', the same for every candidate.
  keys = jnp.asarray(states.rng)
  iterator = data.train_iterator()
  try:
    for step in range(tuning.steps):
      drawn = stack([{name: batch[name] for name in ('image', 'label')}
                     for batch in itertools.islice(iterator, seeds)])
      images = tuning.prepare(keys, step, drawn['image'])
      # At most one update waits for the devices, or the batches of all would pile up on them.
      runner.wait()
      runner.train({'image': images, 'label': drawn['label']})
  finally:
    if hasattr(iterator, 'close'):
      iterator.close()
  losses = runner.losses()
  if not np.isfinite(losses).all():
    seed, candidate = np.argwhere(~np.isfinite(losses))[0]
    raise TrainingDiverged(
        tuning.steps, f'the loss of frequencies {list(candidates[candidate])}, seed number {seed}, '
        'is not finite after fine-tuning; lower config.search.learning_rate')
  return runner


def make_runner(tuning, states, filters, count):
  """What trains and evaluates `count` candidates batch by batch, in the way of `batching`."""
  batching = tuning.batching
  if batching == 'auto':
    batching = 'loop' if tuning.mesh.devices[0].platform == 'cpu' else 'vmap'
  return {'vmap': _Together, 'loop': _InTurn}[batching](tuning, states, filters, count)


def held_out_accuracy(tuning, runner, data):
  """Scores what `fine_tune` returned on `data.evaluation_batches()`.

  Returns:
    Accuracy in percent, `[S, len(candidates)]`.
  """
  images = 0.0
  for batch in data.evaluation_batches():
    images += float(np.sum(batch['mask']))
    runner.evaluate({'image': tuning.prepare_evaluation(batch['image']), 'label': batch['label'],
                     'mask': batch['mask']})
  return 100 * runner.correct() / images


def _train_one(tuning, state, filters, batch):
  """One update of one candidate and seed; returns (state, loss)."""
  step = make_train_step(
      _WithFilters(tuning.model, filters), tuning.optimizer, tuning.schedule,
      total_steps=tuning.steps, label_smoothing=tuning.label_smoothing,
      accumulate_steps=tuning.accumulate_steps, freeze=tuning.freeze)
  state, measured = step(state, batch)
  return state, measured['loss'].total / measured['loss'].count


def _evaluate_one(tuning, state, filters, batch):
  """The number of correct images of one batch for one candidate and seed."""
  logits = tuning.model.apply({**state.variables(), 'dct': filters}, batch['image'], train=False)
  return jnp.sum(metrics.top_k_correct(logits, batch['label'], 1) * batch['mask'])


class _Together:
  """All runs in one program, spread over the devices.

  Candidates and seeds share one axis of runs, candidate by candidate: JAX has no rule for the
  kernel gradient of a convolution under two `vmap`s.
  """

  def __init__(self, tuning, states, filters, count):
    self._count, self._seeds = count, _seeds(states)
    runs = count * self._seeds
    # Every device takes equally many, so the last run is repeated where they do not divide.
    devices = tuning.mesh.size
    take = np.minimum(np.arange(-(-runs // devices) * devices), runs - 1)
    candidate, self._seed = take // self._seeds, take % self._seeds
    self._spread = jax.sharding.NamedSharding(tuning.mesh, P(_AXIS))
    self._everywhere = jax.sharding.NamedSharding(tuning.mesh, P())
    self._filters = self._place(filters, candidate)
    self._states = self._place(states, self._seed)
    self._correct, self._losses = 0.0, None
    self._step, self._eval = tuning.mapped_programs
    self._seed = self._place(self._seed, slice(None))

  def _place(self, tree, index):
    return jax.device_put(jax.tree.map(lambda leaf: leaf[index], tree), self._spread)

  def train(self, batch):
    batch = jax.device_put(batch, self._everywhere)
    try:
      self._states, self._losses = self._step(self._states, self._filters, self._seed, batch)
    except NotImplementedError as error:
      raise UserError("jax.vmap cannot train this network's grouped convolutions; set "
                      "config.search.batching='loop'") from error

  def wait(self):
    """Returns when the updates so far are done."""
    jax.block_until_ready(self._losses)

  def evaluate(self, batch):
    batch = jax.device_put(batch, self._everywhere)
    self._correct = self._correct + self._eval(self._states, self._filters, batch)

  def _by_run(self, leaf):
    leaf = np.asarray(leaf)[:self._count * self._seeds]
    return leaf.reshape(self._count, self._seeds, *leaf.shape[1:])

  def variables(self):
    return jax.tree.map(self._by_run, self._states.variables())

  def losses(self):
    """`[S, F]`."""
    return self._by_run(self._losses).T

  def correct(self):
    """Correct images, `[S, F]`."""
    return self._by_run(self._correct).astype(np.float64).T


def _lowering(mesh):
  """Convolutions as matrix products on a CPU, where the grouped ones of `vmap` are slow."""
  on_cpu = mesh.devices[0].platform == 'cpu'
  return force_lowering('matmul') if on_cpu else contextlib.nullcontext()


def _seeds(states):
  return jax.tree.leaves(states)[0].shape[0]


class _InTurn:
  """One candidate and seed after another, each on its device; the same interface."""

  def __init__(self, tuning, states, filters, count):
    self._seeds = _seeds(states)
    self._devices = devices = list(tuning.mesh.devices)
    self._runs = []
    for candidate in range(count):
      device = devices[candidate % len(devices)]
      own = jax.device_put(jax.tree.map(lambda leaf, i=candidate: leaf[i], filters), device)
      for seed in range(self._seeds):
        state = jax.device_put(jax.tree.map(lambda leaf, i=seed: leaf[i], states), device)
        self._runs.append([device, seed, own, state, None, 0.0])
    self._step, self._eval = tuning.programs

  def train(self, batch):
    by_seed = [jax.tree.map(lambda leaf, i=seed: leaf[i], batch) for seed in range(self._seeds)]
    parts = {(device, seed): jax.device_put(part, device)
             for device in self._devices for seed, part in enumerate(by_seed)}
    for run in self._runs:
      device, seed, filters, state = run[:4]
      run[3], run[4] = self._step(state, filters, parts[device, seed])

  def wait(self):
    jax.block_until_ready([run[4] for run in self._runs])

  def evaluate(self, batch):
    parts = {device: jax.device_put(batch, device) for device in self._devices}
    for run in self._runs:
      run[5] = run[5] + self._eval(run[3], run[2], parts[run[0]])

  def variables(self):
    trained = stack([run[3].variables() for run in self._runs])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, self._seeds, *leaf.shape[1:]), trained)

  def losses(self):
    """`[S, F]`."""
    return np.array([float(run[4]) for run in self._runs]).reshape(-1, self._seeds).T

  def correct(self):
    """Correct images, `[S, F]`."""
    return np.array([float(run[5]) for run in self._runs]).reshape(-1, self._seeds).T
