"""Speed-up of searching frequencies together over searching them one after another.

    python -m benchmarks.cpu.frequency_search
    python -m benchmarks.cpu.frequency_search --model=fca_resnet18 --size=64 --candidates 1 7 49

For each number of candidates: images a second over all of them, and the ratio to one candidate
after another. 'together' is one program over all candidates (`config.search.batching='vmap'`), 'in
turn' a program of one candidate called for each ('loop'). The ways take turns, several times, and
the fastest time of each counts. XLA_FLAGS=--xla_force_host_platform_device_count=2 shows what two
CPU devices gain over two threads of one.
"""
import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.configs import frequency_search as config_file
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing
from fcajax.search import scoring
from fcajax.search.fine_tuning import FineTuning
from fcajax.search.runners import make_runner
from fcajax.tasks.classification import Classification
from fcajax.train import optimizer

CLASSES = 10


def candidates(count):
  """Returns `count` candidates of one frequency each."""
  pairs = list(itertools.product(range(7), range(7)))
  return [[pairs[i % len(pairs)]] for i in range(count)]


class RandomData:
  """A data set of one batch of random images."""

  def __init__(self, size, batch):
    random = np.random.default_rng(0)
    self.batch = {
        'image': random.integers(0, 256, (batch, size, size, 3)).astype(np.uint8),
        'label': random.integers(0, CLASSES, batch).astype(np.int32)}
    self.class_names = [str(label) for label in range(CLASSES)]
    self.preprocessing = Preprocessing(image_size=size)
    self.device_augment = None
    self.num_train = self.num_evaluation = batch

  def train_iterator(self):
    return itertools.repeat(self.batch)

  def evaluation_batches(self):
    yield self.batch | {'mask': np.ones(self.num_evaluation, np.float32)}

  def corrupt_files(self):
    return []


class Way:
  """One way to train `count` candidates; `run` does `steps` updates of each."""

  def __init__(self, args, batching, count):
    config = config_file.get_config('imagenette64_cpu')
    data = RandomData(args.size, args.batch)
    model = create_model(args.model, CLASSES, frequencies=((0, 0),), **args.fields)
    sample = jax.ShapeDtypeStruct((1, args.size, args.size, 3), jnp.float32)
    self.tuning = FineTuning(
        model=model, task=Classification(config, data),
        optimizer=optimizer.make_optimizer(config.optimizer),
        schedule=lambda step: jnp.float32(0.01), steps=args.steps, batching=batching,
        devices=jax.devices()[:args.devices or None])
    base = create_model(args.model, CLASSES, attention='none', **args.fields)
    variables = jax.jit(lambda key, x: base.init(key, x, train=False))(
        jax.random.key(0), jnp.zeros(sample.shape))
    states = scoring.initial_states(self.tuning, variables, [0], sample)
    filters = scoring.candidate_filters(model, candidates(count), sample)
    self.runner = make_runner(self.tuning, states, filters, count)
    batch = self.tuning.task.prepare(None, next(data.train_iterator()), False)
    self.batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], batch)
    self.images = count * args.steps * args.batch
    self.runner.train(self.batch)
    self.runner.losses()

  def run(self):
    """Returns the seconds of one run."""
    start = time.perf_counter()
    for _ in range(self.tuning.steps):
      self.runner.train(self.batch)
    self.runner.losses()
    return time.perf_counter() - start


def measure(args):
  rows = []
  for count in args.candidates:
    ways = {name: Way(args, name, count) for name in ('loop', 'vmap')}
    seconds = {name: [] for name in ways}
    for _ in range(args.repeats):
      for name, way in ways.items():
        seconds[name].append(way.run())
    rates = {name: way.images / min(seconds[name]) for name, way in ways.items()}
    rows.append({'candidates': count, 'in_turn': round(rates['loop'], 1),
                 'together': round(rates['vmap'], 1),
                 'speed_up': round(rates['vmap'] / rates['loop'], 2)})
  return {'model': args.model, 'size': args.size, 'batch': args.batch, 'rows': rows}


def show(results):
  print(f'{results["model"]}, {results["size"]} x {results["size"]}, batch {results["batch"]} a '
        'candidate: images a second\n')
  print(common.markdown(['candidates', 'in turn', 'together', 'speed-up'], [
      [str(value) for value in row.values()] for row in results['rows']]))


def main(argv=None):
  common.run('benchmarks.cpu.frequency_search', __doc__, measure, show, argv=argv, options={
      '--model': {'default': 'fca_resnet20'},
      '--fields': {'type': json.loads, 'default': {}, 'help': 'fields of the model, as JSON'},
      '--size': {'type': int, 'default': 32},
      '--batch': {'type': int, 'default': 64},
      '--steps': {'type': int, 'default': 3},
      '--repeats': {'type': int, 'default': 3},
      '--devices': {'type': int, 'default': 0, 'help': '0 takes all'},
      '--candidates': {'type': int, 'nargs': '+', 'default': [1, 4, 7]},
  }, small={'fields': {'stage_sizes': (1,), 'stage_strides': (1,), 'width': 16}, 'size': 16,
            'batch': 2, 'steps': 1, 'repeats': 1, 'devices': 1, 'candidates': [1]})


if __name__ == '__main__':
  main()
