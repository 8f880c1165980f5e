"""How fast pixels become DCT coefficients on this machine's default device, beside two bounds.

    python -m benchmarks.accelerator.block_dct [--batch 8] [--size 448]

The memory bound is the time to read the uint8 pixels and write the float32 coefficients at the
bandwidth measured by a copy in the same run; the compute bound is the cheaper formulation's
multiply-adds at the rate of a large float32 matrix product at full precision. All candidates take
turns, and the fastest repetition counts.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.ops.block_dct import block_dct
from fcajax.selection.coefficients import coefficient_subset, rgb_to_coefficients

SUBSETS = ('6S', '24S', '64S', '192')


def macs_per_block(count):
  """Returns the multiply-adds of a block: separable over all 64, or one product for `count`."""
  return min(3 * 2 * 8 * 64, 64 * count)


def candidates(images, subsets):
  """Returns (subset, way) -> compiled function without arguments."""
  functions = {}
  for name in subsets:
    subset = coefficient_subset(name)
    ways = {'block_dct': lambda x, s=subset: block_dct(x, indices=s.components)}
    ways |= {f'from RGB, {chroma}': lambda x, s=subset, c=chroma: rgb_to_coefficients(x, s, c)
             for chroma in ('full', 'half')}
    for way, function in ways.items():
      functions[name, way] = functools.partial(jax.jit(function), images)
  return functions


def measure(args):
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8))
  large = jnp.asarray(rng.normal(size=args.copied).astype(np.float32))
  matrix = jnp.asarray(rng.normal(size=(args.side, args.side)).astype(np.float32))
  copy = jax.jit(lambda x: x + 1)
  product = jax.jit(lambda m: jnp.dot(m, m, precision=jax.lax.Precision.HIGHEST))
  functions = {'copy': lambda: copy(large), 'product': lambda: product(matrix)}
  functions |= candidates(images, args.subsets)
  times = common.interleaved(functions, args.repeats)
  seconds = {name: float(values[:, 0].min()) for name, values in times.items()}

  bandwidth = 2 * large.nbytes / seconds['copy']
  rate = args.side**3 / seconds['product']
  blocks = (args.size // 8) ** 2
  rows = {}
  for name in args.subsets:
    count = len(coefficient_subset(name))
    row = {way: 1e3 * seconds[subset, way] / args.batch
           for subset, way in list(functions)[2:] if subset == name}
    row['memory bound'] = 1e3 * (images.nbytes / args.batch + 4 * blocks * count) / bandwidth
    row['compute bound'] = 1e3 * blocks * macs_per_block(count) / rate
    rows[name] = {way: round(value, 4) for way, value in row.items()}
  return {
      'device': jax.devices()[0].device_kind, 'batch': args.batch, 'size': args.size,
      'copy_gigabytes_per_second': round(bandwidth / 1e9, 2),
      'product_giga_macs_per_second': round(rate / 1e9, 2), 'milliseconds_per_image': rows}


def show(results):
  print(f'{results["device"]}, batch {results["batch"]}, {results["size"]} x {results["size"]} '
        f'pixels; copy {results["copy_gigabytes_per_second"]} GB/s, float32 product '
        f'{results["product_giga_macs_per_second"]} G multiply-adds/s; milliseconds an image\n')
  rows = results['milliseconds_per_image']
  names = list(next(iter(rows.values())))
  print(common.markdown(['subset', *names], [
      [subset, *(f'{row[name]:.3f}' for name in names)] for subset, row in rows.items()]))


def main(argv=None):
  common.run('benchmarks.accelerator.block_dct', __doc__, measure, show, argv=argv, options={
      '--batch': {'type': int, 'default': 8},
      '--size': {'type': int, 'default': 448, 'help': 'side of the images in pixels'},
      '--repeats': {'type': int, 'default': 10},
      '--subsets': {'nargs': '+', 'default': SUBSETS},
      '--copied': {'type': int, 'default': 1 << 24, 'help': 'floats that the copy moves'},
      '--side': {'type': int, 'default': 1024, 'help': 'of the matrix in the product'},
  }, small={'batch': 1, 'size': 16, 'repeats': 2, 'subsets': ('6S',), 'copied': 1024, 'side': 32})


if __name__ == '__main__':
  main()
