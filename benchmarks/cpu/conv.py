"""The lowerings of `Conv` beside XLA's convolution: whole training steps, or shape by shape.

    python -m benchmarks.cpu.conv                              # ResNet-50, batch 8, at 224 and 64
    python -m benchmarks.cpu.conv --model resnext50_32x4d --sizes 64 --batch 2
    python -m benchmarks.cpu.conv --shapes                     # one convolution at a time
    python -m benchmarks.cpu.conv --model resnet20 --sizes 32 --batch 128 --copies 4
    python -m benchmarks.cpu.conv --lowerings conv auto matmul --dtype bfloat16

'conv' is `nn.Conv` throughout: `jax.lax.conv_general_dilated` with the same parameters. A step is
forward, backward and update (SGD). The bound is that of the multiply-adds alone, three times those
of an inference, at the rate of a large matrix product in the same run. Times are medians of
interleaved runs. `--copies K` trains K networks at once, vmapped over their parameters. CPU
seconds, those of all threads together, say more than wall seconds on a machine with other work.
"""
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.analysis import cost
from fcajax.models.registry import create_model
from fcajax.ops.convolution import Window, convolve, force_lowering

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
    'input gradient': lambda f: lambda x, kernel, g: jax.vjp(lambda x: f(x, kernel), x)[1](g),
    'kernel gradient': lambda f: lambda x, kernel, g: jax.vjp(lambda k: f(x, k), kernel)[1](g),
}


def medians(functions, arguments, repeats, budget):
  """Returns name -> (median wall seconds, median CPU seconds)."""
  times = common.interleaved(functions, repeats, *arguments, budget=budget)
  return {name: np.median(values, axis=0) for name, values in times.items()}


def training_step(model):
  """Builds an SGD step of a classifier: (variables, images, labels) -> variables."""
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


def product_rate(side):
  """Measures the multiply-adds a second of a large float32 matrix product."""
  matrix = jnp.ones((side, side))
  times = medians({'product': jax.jit(lambda m: m @ m)}, (matrix,), 9, float('inf'))
  return side**3 / times['product'][0]


def compile_steps(model, args, inputs):
  """Returns lowering -> compiled training step, and lowering -> facts about its compilation."""
  compiled, facts = {}, {}
  for name in args.lowerings:
    step = training_step(model)
    if args.copies > 1:
      step = jax.vmap(step, in_axes=(0, None, None))
    with force_lowering(name):
      start = time.perf_counter()
      compiled[name] = jax.jit(lambda *a, step=step: step(*a)).lower(*inputs).compile()
      seconds = time.perf_counter() - start
    memory = compiled[name].memory_analysis().temp_size_in_bytes / 1e6
    facts[name] = {'compile_seconds': round(seconds, 1), 'temporary_megabytes': round(memory)}
  return compiled, facts


def whole_step(args, size):
  """Measures the training step of the whole network with each lowering."""
  model = create_model(args.model, num_classes=1000, dtype=args.dtype, **args.fields)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.standard_normal((args.batch, size, size, 3)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, 1000, args.batch), jnp.int32)
  keys = jax.random.split(jax.random.key(0), args.copies)

  def init(key):
    return model.init(key, images[:1], train=False)
  variables = jax.jit(init)(keys[0]) if args.copies == 1 else jax.jit(jax.vmap(init))(keys)
  inputs = (variables, images, labels)
  compiled, facts = compile_steps(model, args, inputs)
  times = medians(compiled, inputs, args.repeats, 600)
  macs = 3 * args.copies * args.batch * cost.count(model, (size, size, 3)).total.macs
  rows = {name: {'wall_seconds': round(float(wall), 4), 'cpu_seconds': round(float(cpu), 4),
                 **facts[name]} for name, (wall, cpu) in times.items()}
  return {'size': size, 'bound_seconds': round(macs / product_rate(args.side), 4),
          'lowerings': rows}


def single_convolutions(args):
  """Measures forward, input gradient and kernel gradient of single convolutions, CPU seconds."""
  rng = np.random.default_rng(0)
  rows = []
  for size, channels, features, k, stride, groups in SHAPES:
    window = Window((stride, stride), ((k // 2, k // 2),) * 2, (1, 1), groups)
    x = jnp.asarray(rng.standard_normal((args.batch, size, size, channels)), args.dtype)
    kernel = jnp.asarray(rng.standard_normal((k, k, channels // groups, features)), args.dtype)
    side = window.output_size((size, size), (k, k))[0]
    g = jnp.asarray(rng.standard_normal((args.batch, side, side, features)), args.dtype)
    row = {'size': size, 'input': channels, 'output': features, 'kernel': k, 'stride': stride,
           'groups': groups}
    for part, make in PARTS.items():
      functions = {
          name: jax.jit(make(functools.partial(convolve, window=window, lowering=name)))
          for name in args.lowerings if not (name == 'split_gradient' and groups > 1)}
      # XLA's grouped kernel gradients take 10 s each.
      times = medians(functions, (x, kernel, g), args.repeats, 30)
      row[part] = {name: float(cpu) for name, (_, cpu) in times.items()}
    rows.append(row)
  return rows


def measure(args):
  settings = {'model': args.model, 'batch': args.batch, 'dtype': args.dtype,
              'copies': args.copies}
  if args.shapes:
    return settings | {'convolutions': single_convolutions(args)}
  return settings | {'steps': [whole_step(args, size) for size in args.sizes]}


def show(results):
  if 'convolutions' in results:
    header = ['size', 'input', 'output', 'kernel', 'stride', 'groups']
    print(f'Batch {results["batch"]}, {results["dtype"]}: CPU milliseconds, '
          + ' / '.join(results['convolutions'][0]['forward']) + '\n')
    print(common.markdown([*header, *PARTS], [
        [*(str(row[key]) for key in header),
         *(' / '.join(f'{1e3 * value:.1f}' for value in row[part].values()) for part in PARTS)]
        for row in results['convolutions']]))
    return
  for step in results['steps']:
    print(f'\n{results["model"]}, batch {results["batch"]}, {step["size"]} x {step["size"]}, '
          f'{results["dtype"]}, {results["copies"]} at once: training step, bound '
          f'{step["bound_seconds"]:.3f} s\n')
    header = ['wall_seconds', 'cpu_seconds', 'compile_seconds', 'temporary_megabytes']
    print(common.markdown(['lowering', *(key.replace('_', ' ') for key in header)], [
        [name, *(str(row[key]) for key in header)] for name, row in step['lowerings'].items()]))


def main(argv=None):
  common.run('benchmarks.cpu.conv', __doc__, measure, show, argv=argv, options={
      '--model': {'default': 'resnet50'},
      '--fields': {'type': json.loads, 'default': {}, 'help': 'fields of the model, as JSON'},
      '--batch': {'type': int, 'default': 8},
      '--sizes': {'type': int, 'nargs': '*', 'default': [224, 64]},
      '--copies': {'type': int, 'default': 1},
      '--repeats': {'type': int, 'default': 5},
      '--dtype': {'default': 'float32', 'choices': ['float32', 'bfloat16']},
      '--lowerings': {'nargs': '+', 'default': ['conv', 'auto']},
      '--shapes': {'action': 'store_true'},
      '--side': {'type': int, 'default': 2048, 'help': 'of the matrix product of the bound'},
  }, small={'model': 'resnet20', 'fields': {'stage_sizes': (1,), 'stage_strides': (1,), 'width': 8},
            'batch': 1, 'sizes': [8], 'repeats': 1, 'side': 64})


if __name__ == '__main__':
  main()
