"""Fourier transforms of feature maps as an FFT and as matrix products, side by side.

    python benchmarks/fourier.py                        # the Fourier unit, batch 8, float32
    python benchmarks/fourier.py --batch 128 --dtype bfloat16
    python benchmarks/fourier.py --convolutions         # one joined convolution, or two
    python benchmarks/fourier.py --write-docs           # the first into docs/ffc.md
    python benchmarks/fourier.py --write-table          # regenerates what 'auto' goes by

Times are medians of interleaved runs, in milliseconds. The unit is `FourierUnit` in training mode,
forward and backward (gradients of input and parameters).
"""
import argparse
import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.layers.conv import Conv
from fcajax.layers.fourier_unit import FourierUnit
from fcajax.ops import fourier

IMPLEMENTATIONS = ('fft', 'dft')
DOCS = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'ffc.md'
# Side and channels of the spectral paths of FFC-ResNet-50 at 224 x 224, ratio 0.5.
UNITS = ((56, 32), (28, 64), (14, 128), (7, 256))
TABLE_SIZES = (2, 4, 7, 8, 11, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 128, 160, 224)
# Every size of the table is measured on about as many values.
TABLE_VALUES = 400_000


def medians(functions, args, repeats):
  """Name -> median milliseconds of `function(*args)`; the functions take turns."""
  compiled = {name: jax.jit(function) for name, function in functions.items()}
  for function in compiled.values():
    jax.block_until_ready(function(*args))
  times = {name: [] for name in compiled}
  for _ in range(repeats):
    for name, function in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(function(*args))
      times[name].append(1e3 * (time.perf_counter() - start))
  return {name: float(np.median(values)) for name, values in times.items()}


def random(shape, dtype, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def unit_times(size, channels, batch, dtype, repeats):
  """Forward and backward of a Fourier unit, by implementation."""
  x = random((batch, size, size, channels), dtype)
  variables = jax.jit(FourierUnit(channels).init)(jax.random.key(0), x)

  def step(implementation):
    layer = FourierUnit(channels, implementation=implementation, dtype=dtype)

    def loss(params, x):
      y, _ = layer.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
      return (y.astype(jnp.float32) ** 2).sum()
    return jax.grad(loss, argnums=(0, 1))

  return medians({name: step(name) for name in IMPLEMENTATIONS}, (variables['params'], x), repeats)


def table_row(size, dtype, repeats):
  """Forward and backward of the two transforms with a ReLU between them."""
  batch = max(1, TABLE_VALUES // (32 * size * size))
  x = random((batch, size, size, 32), dtype)

  def step(implementation):
    def loss(x):
      spectrum = fourier.rfft2(x, implementation=implementation)
      spectrum = [jax.nn.relu(half).astype(x.dtype) for half in spectrum]
      y = fourier.irfft2(spectrum, (size, size), implementation=implementation)
      return (y ** 2).sum()
    return jax.grad(loss)

  times = medians({name: step(name) for name in IMPLEMENTATIONS}, (x,), repeats)
  return {'size': size, **{f'{name}_ms': round(times[name], 3) for name in IMPLEMENTATIONS}}


def convolution_times(size, channels, kernel_size, batch, dtype, repeats):
  """The local output of an FFC of ratio 0.5: one convolution of both halves, or two added."""
  pair = tuple(random((batch, size, size, channels), dtype, seed) for seed in (0, 1))
  kernels = tuple(random((kernel_size, kernel_size, channels, channels), jnp.float32, seed)
                  for seed in (2, 3))

  def convolve(x, kernel):
    return Conv(channels, kernel_size, dtype=dtype).apply({'params': {'kernel': kernel}}, x)

  def joined(pair, kernels):
    return convolve(jnp.concatenate(pair, -1), jnp.concatenate(kernels, 2))

  def separate(pair, kernels):
    return convolve(pair[0], kernels[0]) + convolve(pair[1], kernels[1])

  def step(function):
    return jax.grad(lambda pair, kernels: (function(pair, kernels) ** 2).sum(), argnums=(0, 1))

  return medians({'joined': step(joined), 'separate': step(separate)}, (pair, kernels), repeats)


def table_of(title, rows):
  """A Markdown table of `[(label, {name: ms})]`, with the ratio of the two columns."""
  names = list(rows[0][1])
  device = jax.devices()[0].device_kind
  if device == 'cpu':
    device = f'a CPU, {os.cpu_count()} cores'
  lines = [f'{title}, on {device}, jax {jax.__version__}:', '',
           f'| map | `{names[0]}`, ms | `{names[1]}`, ms | ratio |', '|---|---|---|---|']
  for label, times in rows:
    first, second = times.values()
    lines.append(f'| {label} | {first:.2f} | {second:.2f} | {first / second:.2f} |')
  return '\n'.join(lines)


def write_table(repeats):
  """Measures the entry of this backend in the table that 'auto' goes by."""
  table = json.loads(fourier._TABLE.read_text())
  entry = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
  for dtype in ('float32', 'bfloat16'):
    rows = entry[dtype] = [table_row(size, jnp.dtype(dtype), repeats) for size in TABLE_SIZES]
    print(table_of(f'rfft2 and irfft2, forward and backward, {dtype}', [
        (row['size'], {name: row[f'{name}_ms'] for name in IMPLEMENTATIONS}) for row in rows]))
  text = json.dumps({**table, jax.default_backend(): entry}, indent=1)
  # One measured size a line.
  text = text.replace('\n    "', ' "').replace('{ "', '{"').replace('\n   }', '}')
  fourier._TABLE.write_text(text + '\n')


def write_docs(table):
  """Puts the table between its two marks in docs/ffc.md."""
  start, end = '<!-- table fourier-unit -->\n', '<!-- end -->'
  before, rest = DOCS.read_text().split(start)
  DOCS.write_text(f'{before}{start}{table}\n{end}{rest.partition(end)[2]}')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--repeats', type=int, default=31)
  parser.add_argument('--convolutions', action='store_true')
  parser.add_argument('--write-docs', action='store_true')
  parser.add_argument('--write-table', action='store_true')
  args = parser.parse_args()
  if args.write_table:
    write_table(args.repeats)
    return
  dtype = jnp.dtype(args.dtype)
  of = f'forward and backward, batch {args.batch}, {args.dtype}'
  if args.convolutions:
    for kernel_size in (3, 1):
      print(table_of(f'Local output of a {kernel_size}x{kernel_size} FFC, {of}', [
          (f'{size} x {size} x {channels}',
           convolution_times(size, channels, kernel_size, args.batch, dtype, args.repeats))
          for size, channels in UNITS]))
    return
  table = table_of(f'Fourier unit, {of}', [
      (f'{size} x {size} x {channels}',
       unit_times(size, channels, args.batch, dtype, args.repeats)) for size, channels in UNITS])
  print(table)
  if args.write_docs:
    write_docs(table)


if __name__ == '__main__':
  main()
