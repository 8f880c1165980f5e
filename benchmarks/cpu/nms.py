"""Milliseconds of non-maximum suppression beside a NumPy loop of the greedy algorithm.

    python -m benchmarks.cpu.nms                      # 500, 2000 and 8000 boxes
    python -m benchmarks.cpu.nms --boxes 2000 --limit 1000 --json nms.json

Boxes are clustered around 100 objects, as proposals are. Medians of `--repeats` runs; both sides
must keep the same boxes.
"""
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.ops.nms import BLOCK, nms


def draw_boxes(number, rng):
  """Boxes around 100 objects and their scores."""
  size = rng.uniform(20, 200, (100, 2))
  corner = rng.uniform(0, 600, (100, 2))
  objects = np.concatenate([corner, corner + size], axis=1)
  chosen = rng.integers(0, 100, number)
  boxes = objects[chosen] + rng.normal(0, 0.12, (number, 4)) * np.tile(size[chosen], 2)
  boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
  return boxes.astype(np.float32), rng.random(number).astype(np.float32)


def greedy(boxes, scores, threshold):
  """The usual loop: keep the best box, drop what overlaps it, repeat."""
  order, kept = np.argsort(-scores, kind='stable'), []
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
  while order.size:
    best, rest = order[0], order[1:]
    kept.append(best)
    size = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(
        boxes[best, :2], boxes[rest, :2])
    common = np.prod(np.maximum(size, 0), axis=1)
    order = rest[common / (area[best] + area[rest] - common) <= threshold]
  return np.asarray(kept)


def median_ms(function, args, repeats):
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - start)
  return 1e3 * float(np.median(times))


def measure(args):
  rows = []
  for number in args.boxes:
    boxes, scores = draw_boxes(number, np.random.default_rng(0))
    on_device = jnp.asarray(boxes), jnp.asarray(scores)
    run = jax.jit(functools.partial(
        nms, threshold=args.threshold, limit=args.limit, block=args.block))
    indices, kept = run(*on_device)
    expected = greedy(boxes, scores, args.threshold)[:args.limit]
    np.testing.assert_array_equal(np.asarray(indices)[np.asarray(kept)], expected)
    rows.append({
        'boxes': number, 'kept': len(expected),
        'fcajax_ms': median_ms(run, on_device, args.repeats),
        'numpy_ms': median_ms(greedy, (boxes, scores, args.threshold), 3)})
  return {'threshold': args.threshold, 'limit': args.limit, 'rows': rows}


def show(results):
  print(f'\nthreshold {results["threshold"]}, limit {results["limit"]}\n')
  print(common.markdown(['boxes', 'kept', 'fcajax, ms', 'NumPy, ms'], [
      [str(row['boxes']), str(row['kept']), f'{row["fcajax_ms"]:.1f}', f'{row["numpy_ms"]:.1f}']
      for row in results['rows']]))


def main(argv=None):
  common.run('benchmarks.cpu.nms', __doc__, measure, show, argv=argv, options={
      '--boxes': {'type': int, 'nargs': '+', 'default': [500, 2000, 8000]},
      '--threshold': {'type': float, 'default': 0.7},
      '--limit': {'type': int},
      '--block': {'type': int, 'default': BLOCK},
      '--repeats': {'type': int, 'default': 15},
  }, small={'boxes': [50], 'repeats': 1})


if __name__ == '__main__':
  main()
