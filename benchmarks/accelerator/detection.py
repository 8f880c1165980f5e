"""Images a second of Mask R-CNN: the training step and inference, beside torchvision's.

    python -m benchmarks.accelerator.detection             # R50-FPN, 800 x 1344, batch 1 to 16
    python -m benchmarks.accelerator.detection --batch 2 4 --dtype float32
    python -m benchmarks.accelerator.detection --model faster_rcnn_fpn --backbone fca_resnet50

Random images with eight objects each, already on the device. A training step is the five losses,
their gradients and an update of SGD with momentum; inference goes from normalised images to boxes
and masks of 28 x 28. torchvision's network (no weights, automatic mixed precision for bfloat16) is
measured on the same machine where it is installed; `--torch no` leaves it out. Random weights make
as many proposals as trained ones, since their number is fixed here; torchvision's inference with
random weights finds few objects or many, so that only its training is compared with care.
"""
import argparse
import functools
import importlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import common
from fcajax.models.detection.targets import Truth
from fcajax.models.registry import create_model

OBJECTS = 8
CLASSES = 80


def make_truth(batch, size, masks):
  """Returns random boxes within images of (height, width) `size`, and masks cut to them."""
  random = np.random.default_rng(0)
  extent = np.array(size[::-1], np.float32)
  corner = random.uniform(0, 0.6, (batch, OBJECTS, 2)) * extent
  boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.4, corner.shape) * extent], -1)
  boxes = jnp.asarray(boxes, jnp.float32)
  cut = jnp.asarray(random.random((batch, OBJECTS, 56, 56)) < 0.6, jnp.float32)
  return Truth(boxes, jnp.asarray(random.integers(0, CLASSES, (batch, OBJECTS)), jnp.int32),
               jnp.ones((batch, OBJECTS), bool), masks=cut if masks else None,
               regions=boxes if masks else None)


def seconds_of(call, repeats):
  """Returns the median seconds of a call that waits for its result, after one that compiles it."""
  call()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
  return float(np.median(times))


class Jax:
  """This library's detector."""

  def __init__(self, args):
    fields = {'backbone': args.backbone, 'num_classes': CLASSES, **args.fields}
    if args.dtype != 'float32':
      fields['dtype'] = args.dtype
    self._model = create_model(args.model, **fields)
    self._size = tuple(args.size)
    pixels = jnp.zeros((1, *self._size, 3))
    self._variables = jax.jit(
        lambda key, x: self._model.init(key, x, train=False))(jax.random.key(0), pixels)
    self._optimizer = optax.sgd(1e-5, momentum=0.9)

  def _images(self, batch):
    return jax.random.normal(jax.random.key(1), (batch, *self._size, 3))

  def train(self, batch):
    """Returns a function that makes one update."""
    images, truth = self._images(batch), make_truth(batch, self._size, self._model.masks)
    fixed = {name: tree for name, tree in self._variables.items() if name != 'params'}

    def loss(params, key):
      losses, _ = self._model.apply(
          {'params': params, **fixed}, images, None, truth, train=True, mutable=['batch_stats'],
          rngs={'sampler': key})
      return sum(losses.values())

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry, key):
      params, momentum = carry
      value, gradients = jax.value_and_grad(loss)(params, key)
      updates, momentum = self._optimizer.update(gradients, momentum, params)
      return (optax.apply_updates(params, updates), momentum), value

    params = jax.tree.map(jnp.copy, self._variables['params'])
    carry = [(params, self._optimizer.init(params))]

    def call():
      carry[0], value = step(carry[0], jax.random.key(2))
      jax.block_until_ready(value)

    return call

  def infer(self, batch):
    """Returns a function that finds the objects of a batch."""
    images = self._images(batch)
    run = jax.jit(lambda variables, x: self._model.apply(variables, x, train=False))
    return lambda: jax.block_until_ready(run(self._variables, images))


class Torch:
  """torchvision's detector of the same kind."""

  def __init__(self, args):
    import torch
    from torchvision.models import detection
    self._torch, self._size = torch, tuple(args.size)
    self._masks = args.model.startswith('mask')
    build = detection.maskrcnn_resnet50_fpn if self._masks else detection.fasterrcnn_resnet50_fpn
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self._half = args.dtype == 'bfloat16'
    self._model = build(weights=None, weights_backbone=None, num_classes=CLASSES + 1,
                        min_size=min(self._size), max_size=max(self._size)).to(self._device)
    self._optimizer = torch.optim.SGD(self._model.parameters(), 1e-5, momentum=0.9)

  def _images(self, batch):
    generator = self._torch.Generator().manual_seed(0)
    return [self._torch.rand((3, *self._size), generator=generator).to(self._device)
            for _ in range(batch)]

  def _wait(self):
    if self._device == 'cuda':
      self._torch.cuda.synchronize()

  def _precision(self):
    return self._torch.autocast(self._device, dtype=self._torch.bfloat16, enabled=self._half)

  def train(self, batch):
    """Returns a function that makes one update."""
    images, truth = self._images(batch), make_truth(batch, self._size, False)
    targets = []
    for boxes, labels in zip(np.asarray(truth.boxes), np.asarray(truth.labels)):
      target = {'boxes': self._torch.tensor(boxes, device=self._device),
                'labels': self._torch.tensor(labels + 1, dtype=self._torch.int64,
                                             device=self._device)}
      if self._masks:
        target['masks'] = self._torch.zeros(
            (OBJECTS, *self._size), dtype=self._torch.uint8, device=self._device)
      targets.append(target)

    def call():
      self._model.train()
      with self._precision():
        loss = sum(self._model(images, targets).values())
      self._optimizer.zero_grad()
      loss.backward()
      self._optimizer.step()
      self._wait()

    return call

  def infer(self, batch):
    """Returns a function that finds the objects of a batch."""
    images = self._images(batch)

    def call():
      self._model.eval()
      with self._torch.inference_mode(), self._precision():
        self._model(images)
      self._wait()

    return call


def torchvision_works():
  """Returns True if torchvision is installed and fits the torch beside it."""
  try:
    importlib.import_module('torchvision.models.detection')
  except (ImportError, RuntimeError) as error:
    print(f'without torchvision: {error}')
    return False
  return True


def measure(args):
  ways = {'fcajax': Jax}
  if args.torch == 'yes' and args.backbone == 'resnet50' and torchvision_works():
    ways['torchvision'] = Torch
  rows = []
  for name, way in ways.items():
    network = way(args)
    for batch in args.batch:
      for kind in ('train', 'infer'):
        seconds = seconds_of(getattr(network, kind)(batch), args.repeats)
        rows.append({'library': name, 'batch': batch, 'kind': kind,
                     'images_per_second': round(batch / seconds, 3)})
        print(f'{name}, batch {batch}, {kind}: {batch / seconds:.2f} images a second', flush=True)
  return {'model': args.model, 'backbone': args.backbone, 'size': list(args.size),
          'dtype': args.dtype, 'rows': rows}


def show(results):
  rates = {(row['library'], row['kind'], row['batch']): row['images_per_second']
           for row in results['rows']}
  ways = list(dict.fromkeys(key[:2] for key in rates))
  print(f'\n{results["model"]}, {results["backbone"]}, {results["dtype"]}, '
        f'{results["size"][0]} x {results["size"][1]}: images a second\n')
  print(common.markdown(
      ['batch', *(f'{library}, {kind}' for library, kind in ways)],
      [[str(batch), *(f'{rates[*way, batch]:.2f}' for way in ways)]
       for batch in dict.fromkeys(key[2] for key in rates)], 'r' * (1 + len(ways))))


def main(argv: list[str] | None = None) -> None:
  common.run('benchmarks.accelerator.detection', __doc__, measure, show, argv=argv, options={
      '--model': {'default': 'mask_rcnn_fpn'},
      '--backbone': {'default': 'resnet50'},
      '--size': {'type': int, 'nargs': 2, 'default': (800, 1344), 'metavar': ('H', 'W')},
      '--batch': {'type': int, 'nargs': '+', 'default': (1, 2, 4, 8, 16)},
      '--dtype': {'default': 'bfloat16', 'choices': ('float32', 'bfloat16')},
      '--repeats': {'type': int, 'default': 10},
      '--torch': {'default': 'yes', 'choices': ('yes', 'no')},
      '--fields': {'default': {}, 'help': argparse.SUPPRESS},
  }, small={'backbone': 'resnet18', 'size': (64, 96), 'batch': (1,), 'repeats': 1,
            'fields': {'backbone_options': {'stage_sizes': (1, 1, 1, 1), 'width': 8},
                       'channels': 16, 'proposals_before': (50, 50), 'proposals_after': (50, 50),
                       'box_sampling': (32, 0.25)}})


if __name__ == '__main__':
  main()
