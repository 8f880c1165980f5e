"""RoIAlign by interpolation matrices beside a gather of the four corners of every sample.

    python -m benchmarks.cpu.roi_align                       # 128 boxes, 100 x 168 x 256
    python -m benchmarks.cpu.roi_align --boxes 512 --map 200 336 --json roi_align.json

Both with sampling ratio 2, aligned, float32: forward, and forward with the gradient of the
features. Medians of `--repeats` runs; both sides must agree to 1e-4.
"""
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.ops.roi_align import roi_align


def gather_align(features, boxes, size, scale):
  """RoIAlign that looks every sample up: indices of the corners, weights, a mean."""
  height, width, _ = features.shape

  def axis(start, end, cells):
    step = (end - start)[:, None] / (2 * size)
    position = start[:, None] + (jnp.arange(2 * size) + 0.5) * step
    inside = (position >= -1) & (position <= cells)
    position = jnp.clip(position, 0, cells - 1)
    low = jnp.minimum(position.astype(jnp.int32), cells - 1)
    high = jnp.minimum(low + 1, cells - 1)
    part = position - low
    return (low, high), ((1 - part) * inside, part * inside)

  corners = boxes * scale - 0.5
  rows, row_weights = axis(corners[:, 1], corners[:, 3], height)
  columns, column_weights = axis(corners[:, 0], corners[:, 2], width)
  total = sum(
      features[r[:, :, None], c[:, None]] * (rw[:, :, None] * cw[:, None])[..., None]
      for r, rw in zip(rows, row_weights) for c, cw in zip(columns, column_weights))
  return total.reshape(-1, size, 2, size, 2, features.shape[-1]).mean(axis=(2, 4))


def median_ms(function, args, repeats):
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - start)
  return 1e3 * float(np.median(times))


def measure(args):
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.standard_normal((*args.map, args.channels)), jnp.float32)
  scale = 1 / 8
  limits = np.asarray([args.map[1], args.map[0]]) / scale
  corner = rng.uniform(0, 0.8, (args.boxes, 2)) * limits
  side = np.minimum(rng.uniform(60, 224, (args.boxes, 2)), limits - corner)
  boxes = jnp.asarray(np.concatenate([corner, corner + side], axis=1), jnp.float32)
  ways = {
      'matrices': lambda f, b: roi_align(f, b, args.size, scale, 2),
      'gather': lambda f, b: gather_align(f, b, args.size, scale),
  }
  outputs = [jax.jit(way)(features, boxes) for way in ways.values()]
  np.testing.assert_allclose(*outputs, atol=1e-4)
  rows = []
  for name, way in ways.items():
    gradient = jax.grad(lambda f, b, way=way: jnp.sum(way(f, b) ** 2))
    rows.append({'way': name,
                 'forward_ms': median_ms(jax.jit(way), (features, boxes), args.repeats),
                 'gradient_ms': median_ms(jax.jit(gradient), (features, boxes), args.repeats)})
  return {'boxes': args.boxes, 'map': [*args.map, args.channels], 'bins': args.size, 'rows': rows}


def show(results):
  print(f'\n{results["boxes"]} boxes, map {" x ".join(map(str, results["map"]))}, '
        f'{results["bins"]} x {results["bins"]} bins\n')
  print(common.markdown(['way', 'forward, ms', 'with gradient, ms'], [
      [row['way'], f'{row["forward_ms"]:.1f}', f'{row["gradient_ms"]:.1f}']
      for row in results['rows']]))


def main(argv=None):
  common.run('benchmarks.cpu.roi_align', __doc__, measure, show, argv=argv, options={
      '--boxes': {'type': int, 'default': 128},
      '--map': {'type': int, 'nargs': 2, 'default': [100, 168]},
      '--channels': {'type': int, 'default': 256},
      '--size': {'type': int, 'default': 7},
      '--repeats': {'type': int, 'default': 5},
  }, small={'boxes': 4, 'map': [20, 24], 'channels': 8, 'repeats': 1})


if __name__ == '__main__':
  main()
