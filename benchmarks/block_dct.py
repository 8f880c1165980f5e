"""How fast pixels become coefficients on this machine's default device, beside two bounds.

    python -m benchmarks.block_dct [--batch 8] [--size 448]

The memory bound is the time to read the uint8 pixels and write the float32 coefficients at the
bandwidth measured by a copy in the same run; the compute bound is the cheaper formulation's
multiply-adds at the rate of a large float32 matrix product at full precision. A run of all
candidates is interleaved and repeated, and the fastest repetition counts.
"""
import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.ops.block_dct import METHODS, block_dct
from fcajax.ops.coefficients import coefficient_subset, rgb_to_coefficients

SUBSETS = ('6S', '24S', '64S', '192')


def measure(functions, repeats):
  """Seconds of the fastest call of each function, calls interleaved."""
  for function, x in functions.values():
    jax.block_until_ready(function(x))
  best = dict.fromkeys(functions, float('inf'))
  for _ in range(repeats):
    for name, (function, x) in functions.items():
      start = time.perf_counter()
      jax.block_until_ready(function(x))
      best[name] = min(best[name], time.perf_counter() - start)
  return best


def macs_per_block(count):
  """Multiply-adds a block: separable over all coefficients, or one product with `count` images."""
  return min(3 * 2 * 8 * 64, 64 * count)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--size', type=int, default=448)
  parser.add_argument('--repeats', type=int, default=10)
  args = parser.parse_args()

  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8))
  large = jnp.asarray(rng.normal(size=1 << 24).astype(np.float32))
  matrix = jnp.asarray(rng.normal(size=(1024, 1024)).astype(np.float32))
  highest = jax.lax.Precision.HIGHEST
  functions = {
      'copy': (jax.jit(lambda x: x + 1), large),
      'product': (jax.jit(lambda m: jnp.dot(m, m, precision=highest)), matrix),
  }
  for name in SUBSETS:
    subset = coefficient_subset(name)
    for method in METHODS[1:]:
      functions[name, method] = (jax.jit(lambda x, s=subset, m=method: block_dct(
          x, indices=s.components, method=m)), images)
    for chroma in ('full', 'half'):
      functions[name, chroma] = (jax.jit(lambda x, s=subset, c=chroma: rgb_to_coefficients(
          x, s, c)), images)
  seconds = measure(functions, args.repeats)

  bandwidth = 2 * large.nbytes / seconds['copy']
  rate = 1024**3 / seconds['product']
  print(f'{jax.devices()[0].device_kind}, batch {args.batch}, {args.size} x {args.size} pixels')
  print(f'copy {bandwidth / 1e9:.1f} GB/s, float32 product {rate / 1e9:.1f} G multiply-adds/s\n')
  print('| subset | separable | matmul | conv | from RGB, full | from RGB, half '
        '| memory bound | compute bound |')
  print('|---' * 8 + '|')
  blocks = (args.size // 8) ** 2
  for name in SUBSETS:
    count = len(coefficient_subset(name))
    times = [seconds[name, column] / args.batch for column in (*METHODS[1:], 'full', 'half')]
    bounds = ((images.nbytes / args.batch + 4 * blocks * count) / bandwidth,
              blocks * macs_per_block(count) / rate)
    print(f'| {name} | ' + ' | '.join(f'{1e3 * t:.3f}' for t in (*times, *bounds)) + ' |')
  print('\nmilliseconds an image')


if __name__ == '__main__':
  main()
