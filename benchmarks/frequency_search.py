"""Speed-up of searching frequencies together over searching them one after another.

    python benchmarks/frequency_search.py
    python benchmarks/frequency_search.py --model=fca_resnet18 --size=64 --candidates=1,7,49

Prints a row for each way and number of candidates: images a second over all of them, and the ratio
to one candidate after another. 'together' is one program over all candidates
(`config.search.batching='vmap'`), 'in turn' a program of one candidate called for each ('loop').
The ways take turns, several times, and the fastest time of each counts. XLA_FLAGS=
--xla_force_host_platform_device_count=2 shows what two CPU devices gain over two threads of one.
"""
import argparse
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import frequency_search as config_file
from fcajax.analysis import search_training
from fcajax.models.registry import create_model
from fcajax.preprocess import Preprocessing, device_transform
from fcajax.train import optimizer

CLASSES = 10


class RandomData:
  """A stream of random images."""

  def __init__(self, size, batch):
    random = np.random.default_rng(0)
    self._batch = {'image': random.integers(0, 256, (batch, size, size, 3)).astype(np.uint8),
                   'label': random.integers(0, CLASSES, batch).astype(np.int32)}

  def train_iterator(self):
    return itertools.repeat(self._batch)


def candidates(count):
  pairs = list(itertools.product(range(7), range(7)))
  return [[pairs[i % len(pairs)]] for i in range(count)]


class Way:
  """One way to train `count` candidates; `run` does `steps` updates of each."""

  def __init__(self, args, batching, count):
    config = config_file.get_config('imagenette64_cpu')
    model = create_model(args.model, CLASSES, frequencies=((0, 0),))
    sample = jax.ShapeDtypeStruct((1, args.size, args.size, 3), jnp.float32)
    self.tuning = search_training.FineTuning(
        model=model, optimizer=optimizer.make_optimizer(config.optimizer),
        schedule=lambda step: jnp.float32(0.01), steps=args.steps,
        transform=device_transform(Preprocessing(image_size=args.size)), batching=batching)
    base = create_model(args.model, CLASSES, attention='none')
    variables = jax.jit(lambda key, x: base.init(key, x, train=False))(
        jax.random.key(0), jnp.zeros(sample.shape))
    states = search_training.initial_states(self.tuning, variables, [0], sample)
    filters = search_training.candidate_filters(model, candidates(count), sample)
    self.runner = search_training.make_runner(self.tuning, states, filters, count)
    data = next(RandomData(args.size, args.batch).train_iterator())
    self.batch = {'image': jnp.asarray(self.tuning.transform(data['image']))[None],
                  'label': data['label'][None]}
    self.images = count * args.steps * args.batch
    self.runner.train(self.batch)
    self.runner.losses()

  def run(self):
    start = time.perf_counter()
    for _ in range(self.tuning.steps):
      self.runner.train(self.batch)
    self.runner.losses()
    return time.perf_counter() - start


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='fca_resnet20')
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--steps', type=int, default=3)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--candidates', default='1,4,7')
  args = parser.parse_args()
  device = jax.devices()[0]
  print(f'{args.model}, {args.size} x {args.size}, batch {args.batch} a candidate, '
        f'{len(jax.devices())} x {device.device_kind}, jax {jax.__version__}')
  print(f'{"candidates":>10}  {"in turn":>12}  {"together":>12}  {"speed-up":>8}')
  for count in map(int, args.candidates.split(',')):
    ways = {batching: Way(args, batching, count) for batching in ('loop', 'vmap')}
    seconds = {batching: [] for batching in ways}
    for _ in range(args.repeats):
      for batching, way in ways.items():
        seconds[batching].append(way.run())
    rates = {batching: way.images / min(seconds[batching]) for batching, way in ways.items()}
    print(f'{count:10d}  {rates["loop"]:6.0f} img/s  {rates["vmap"]:6.0f} img/s  '
          f'{rates["vmap"] / rates["loop"]:7.2f}x', flush=True)


if __name__ == '__main__':
  main()
