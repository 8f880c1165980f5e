"""The lowerings of `Conv` beside XLA's convolution: whole training steps, then shape by shape.

    python benchmarks/conv.py                                # ResNet-50, batch 8, at 224 and 64
    python benchmarks/conv.py --model resnext50_32x4d --sizes 64 --batch 2
    python benchmarks/conv.py --shapes                       # one convolution at a time
    python benchmarks/conv.py --model resnet20 --sizes 32 --batch 128 --copies 4
    python benchmarks/conv.py --lowerings conv,auto,matmul --dtype bfloat16

'conv' is `nn.Conv` throughout: `jax.lax.conv_general_dilated` with the same parameters. A step is
forward, backward and update (SGD). The bound is that of the multiply-adds alone, three times those
of an inference, at the rate of a large matrix product in the same run. Times are medians of
interleaved runs. `--copies K` trains K networks at once, vmapped over their parameters. CPU
seconds, those of all threads together, say more than wall seconds on a machine with other work.
"""
import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.analysis import cost
from fcajax.layers.conv_lowering import Window, convolve, force_lowering
from fcajax.models.registry import create_model

# Size, input channels, output channels, kernel, stride, groups.
SHAPES = (
    (224, 3, 64, 7, 2, 1),
    (56, 64, 64, 1, 1, 1), (56, 64, 256, 1, 1, 1), (56, 256, 64, 1, 1, 1),
    (56, 256, 512, 1, 2, 1), (28, 128, 512, 1, 1, 1), (14, 1024, 256, 1, 1, 1),
    (7, 512, 2048, 1, 1, 1),
    (56, 64, 64, 3, 1, 1), (56, 128, 128, 3, 2, 1), (28, 128, 128, 3, 1, 1),
    (28, 256, 256, 3, 2, 1), (14, 256, 256, 3, 1, 1), (7, 512, 512, 3, 1, 1),
    (32, 16, 16, 3, 1, 1), (8, 64, 64, 3, 1, 1),
    (56, 128, 128, 3, 1, 32), (14, 512, 512, 3, 1, 32), (56, 256, 256, 3, 2, 32),
    (112, 32, 32, 3, 1, 32), (56, 144, 144, 3, 2, 144), (14, 384, 384, 3, 1, 384),
)

# Of a convolution f(x, kernel) and its cotangent; XLA drops what is not returned.
PARTS = {
    'forward': lambda f: lambda x, kernel, g: f(x, kernel),
    'input': lambda f: lambda x, kernel, g: jax.vjp(lambda x: f(x, kernel), x)[1](g),
    'kernel': lambda f: lambda x, kernel, g: jax.vjp(lambda k: f(x, k), kernel)[1](g),
}


def interleaved(functions, args, repeats, budget=30):
  """Name -> (median wall seconds, median CPU seconds), the functions taking turns.

  No round starts after `budget` seconds: XLA's grouped kernel gradients take 10 s each.
  """
  times = {name: [] for name in functions}
  for function in functions.values():
    jax.block_until_ready(function(*args))
  end = time.perf_counter() + budget
  while len(times[next(iter(times))]) < repeats and time.perf_counter() < end:
    for name, function in functions.items():
      start = time.perf_counter(), time.process_time()
      jax.block_until_ready(function(*args))
      times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
  return {name: np.median(values, axis=0) for name, values in times.items()}


def training_step(model):
  """An SGD step of a classifier: (variables, images, labels) -> variables."""
  def step(variables, images, labels):
    def loss(params):
      logits, updates = model.apply(
          {**variables, 'params': params}, images, train=True, mutable=['batch_stats', 'losses'])
      chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
      return -chosen.mean(), updates['batch_stats']
    gradients, stats = jax.grad(loss, has_aux=True)(variables['params'])
    params = jax.tree.map(lambda p, g: p - 1e-3 * g, variables['params'], gradients)
    return {'params': params, 'batch_stats': stats}
  return step


def product_rate():
  """Multiply-adds a second of a large float32 matrix product."""
  side = 2048
  matrix = jnp.ones((side, side))
  times = interleaved({'product': jax.jit(lambda m: m @ m)}, (matrix,), 9)
  return side**3 / times['product'][0]


def whole_steps(args, size):
  """Prints the step of the whole network for each lowering, and the ratio to the first."""
  model = create_model(args.model, num_classes=1000, dtype=args.dtype)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.standard_normal((args.batch, size, size, 3)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, 1000, args.batch), jnp.int32)
  keys = jax.random.split(jax.random.key(0), args.copies)

  def init(key):
    return model.init(key, images[:1], train=False)
  variables = jax.jit(init)(keys[0]) if args.copies == 1 else jax.jit(jax.vmap(init))(keys)
  compiled = {}
  for name in args.lowerings:
    step = training_step(model)
    if args.copies > 1:
      step = jax.vmap(step, in_axes=(0, None, None))
    with force_lowering(name):
      start = time.perf_counter()
      compiled[name] = jax.jit(lambda *a, step=step: step(*a)).lower(
          variables, images, labels).compile()
      seconds = time.perf_counter() - start
    memory = compiled[name].memory_analysis().temp_size_in_bytes / 1e6
    print(f'  {name}: compiled in {seconds:.1f} s, {memory:.0f} MB of temporaries', flush=True)
  times = interleaved(compiled, (variables, images, labels), args.repeats, budget=600)
  copies = f', {args.copies} copies' if args.copies > 1 else ''
  print(f'{args.model}, batch {args.batch}, {size} x {size}, {args.dtype}{copies}: training step')
  print(f'  {"lowering":<16}{"wall s":>10}{"ratio":>8}{"CPU s":>10}{"ratio":>8}')
  macs = 3 * args.copies * args.batch * cost.count(model, (size, size, 3)).total.macs
  rate = product_rate()
  print(f'  {"bound":<16}{macs / rate:>10.3f}  {macs / 1e9:.0f} G multiply-adds at '
        f'{rate / 1e9:.0f} G a second')
  first = times[args.lowerings[0]]
  for name, (wall, cpu) in times.items():
    print(f'  {name:<16}{wall:>10.3f}{first[0] / wall:>8.2f}{cpu:>10.3f}{first[1] / cpu:>8.2f}',
          flush=True)


def shape_table(args):
  """Prints forward, input gradient and kernel gradient of single convolutions, CPU ms."""
  print(f'batch {args.batch}, {args.dtype}: CPU milliseconds, ' + ' / '.join(args.lowerings))
  width = 10 * len(args.lowerings)
  print(f'{"size, in, out, kernel, stride, groups":<40}{"forward":>{width}}{"input grad":>{width}}'
        f'{"kernel grad":>{width}}')
  rng = np.random.default_rng(0)
  for size, channels, features, k, stride, groups in SHAPES:
    window = Window((stride, stride), ((k // 2, k // 2),) * 2, (1, 1), groups)
    x = jnp.asarray(rng.standard_normal((args.batch, size, size, channels)), args.dtype)
    kernel = jnp.asarray(
        rng.standard_normal((k, k, channels // groups, features)), args.dtype)
    side = window.output_size((size, size), (k, k))[0]
    g = jnp.asarray(rng.standard_normal((args.batch, side, side, features)), args.dtype)
    cells = []
    for part in PARTS:
      functions = {name: jax.jit(PARTS[part](
          functools.partial(convolve, window=window, lowering=name)))
          for name in args.lowerings if not (name == 'split_gradient' and groups > 1)}
      times = interleaved(functions, (x, kernel, g), args.repeats)
      cells.append(' / '.join(f'{1e3 * times[name][1]:.1f}' if name in times else '-'
                              for name in args.lowerings))
    name = f'{size}, {channels}, {features}, {k}, {stride}, {groups}'
    print(f'{name:<40}' + ''.join(f'{cell:>{width}}' for cell in cells), flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='resnet50')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--sizes', type=int, nargs='*', default=[224, 64])
  parser.add_argument('--copies', type=int, default=1)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
  parser.add_argument('--lowerings', type=lambda text: text.split(','), default=['conv', 'auto'])
  parser.add_argument('--shapes', action='store_true')
  args = parser.parse_args()
  print(f'{jax.default_backend()}, {jax.device_count()} device, jax {jax.__version__}')
  if args.shapes:
    shape_table(args)
  else:
    for size in args.sizes:
      whole_steps(args, size)


if __name__ == '__main__':
  main()
