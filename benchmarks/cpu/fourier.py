"""The Fourier unit with an FFT and with matrix products, side by side.

    python -m benchmarks.cpu.fourier                        # batch 8, float32
    python -m benchmarks.cpu.fourier --batch 128 --dtype bfloat16
    python -m benchmarks.cpu.fourier --convolutions         # one joined convolution, or two

Times are medians of interleaved runs, in milliseconds. The unit is `FourierUnit` in training mode,
forward and backward (gradients of input and parameters). `--convolutions` measures the local
output of a fast Fourier convolution of ratio 0.5 instead.
"""
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.layers.conv import Conv
from fcajax.layers.fourier import FourierUnit

IMPLEMENTATIONS = ('fft', 'dft')
# Side and channels of the spectral paths of FFC-ResNet-50 at 224 x 224, ratio 0.5.
UNITS = ((56, 32), (28, 64), (14, 128), (7, 256))


def medians(functions, arguments, repeats):
  """Returns name -> median milliseconds of the compiled function."""
  compiled = {name: jax.jit(function) for name, function in functions.items()}
  times = common.interleaved(compiled, repeats, *arguments)
  return {name: round(1e3 * float(np.median(values[:, 0])), 3) for name, values in times.items()}


def random(shape, dtype, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def unit_times(size, channels, args):
  """Measures forward and backward of a Fourier unit, by implementation."""
  dtype = jnp.dtype(args.dtype)
  x = random((args.batch, size, size, channels), dtype)
  variables = jax.jit(FourierUnit(channels).init)(jax.random.key(0), x)

  def step(implementation):
    layer = FourierUnit(channels, implementation=implementation, dtype=dtype)

    def loss(params, x):
      y, _ = layer.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
      return (y.astype(jnp.float32) ** 2).sum()
    return jax.grad(loss, argnums=(0, 1))

  functions = {name: step(name) for name in IMPLEMENTATIONS}
  return medians(functions, (variables['params'], x), args.repeats)


def convolution_times(size, channels, kernel_size, args):
  """Measures one convolution of both halves joined, and two added."""
  dtype = jnp.dtype(args.dtype)
  pair = tuple(random((args.batch, size, size, channels), dtype, seed) for seed in (0, 1))
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

  functions = {'joined': step(joined), 'separate': step(separate)}
  return medians(functions, (pair, kernels), args.repeats)


def measure(args):
  if args.convolutions:
    tables = {f'local output of a {k} x {k} convolution': {
        f'{size} x {size} x {channels}': convolution_times(size, channels, k, args)
        for size, channels in args.units} for k in (3, 1)}
  else:
    tables = {'Fourier unit': {f'{size} x {size} x {channels}': unit_times(size, channels, args)
                               for size, channels in args.units}}
  return {'batch': args.batch, 'dtype': args.dtype, 'milliseconds': tables}


def show(results):
  for title, rows in results['milliseconds'].items():
    print(f'\n{title}, forward and backward, batch {results["batch"]}, {results["dtype"]}\n')
    names = list(next(iter(rows.values())))
    print(common.markdown(['map', *(f'{name}, ms' for name in names), 'ratio'], [
        [label, *(f'{value:.2f}' for value in times.values()),
         f'{times[names[0]] / times[names[1]]:.2f}'] for label, times in rows.items()]))


def main(argv=None):
  common.run('benchmarks.cpu.fourier', __doc__, measure, show, argv=argv, options={
      '--batch': {'type': int, 'default': 8},
      '--dtype': {'choices': ('float32', 'bfloat16'), 'default': 'float32'},
      '--repeats': {'type': int, 'default': 31},
      '--convolutions': {'action': 'store_true'},
      '--units': {'type': lambda text: tuple(map(int, text.split(','))), 'nargs': '+',
                  'default': UNITS, 'metavar': 'SIDE,CHANNELS'},
  }, small={'units': ((4, 4),), 'repeats': 1, 'batch': 1})


if __name__ == '__main__':
  main()
