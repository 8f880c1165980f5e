"""The photographs that the benchmarks of the input path read, and how they are timed."""
import contextlib
import os
import pathlib
import statistics
import time

import simplejpeg
from sklearn import datasets


def read_photos(folder):
  """Returns the bytes of every JPEG in `folder`; None takes scikit-learn's two photographs."""
  folder = pathlib.Path(folder or pathlib.Path(datasets.__file__).parent / 'images')
  photos = [path.read_bytes() for path in sorted(folder.iterdir())
            if path.suffix.lower() in ('.jpg', '.jpeg')]
  if not photos:
    raise SystemExit(f"no JPEG in '{folder}'")
  return photos


def describe(photos):
  """Returns number, mean megapixels and mean kilobytes of JPEGs."""
  pixels = [height * width for height, width, *_ in map(simplejpeg.decode_jpeg_header, photos)]
  return {'photos': len(photos),
          'megapixels': round(sum(pixels) / len(photos) / 1e6, 2),
          'kilobytes': round(sum(map(len, photos)) / len(photos) / 1e3)}


@contextlib.contextmanager
def cores(count):
  """Restricts this process to `count` of its cores; gives False if that is not possible."""
  if not hasattr(os, 'sched_setaffinity') or len(os.sched_getaffinity(0)) < count:
    yield False
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, sorted(before)[:count])
  try:
    yield True
  finally:
    os.sched_setaffinity(0, before)


def milliseconds(cases, photos, repeats):
  """Measures CPU time an image, the median over passes that take turns.

  Args:
    cases: name -> function of (JPEG bytes, position in the training stream).
    photos: JPEGs.
    repeats: passes over all photographs, after one that is not counted.

  Returns:
    Name -> milliseconds.
  """
  seconds = {name: [] for name in cases}
  for repeat in range(repeats + 1):
    for name, function in cases.items():
      started = time.process_time()
      for i, data in enumerate(photos):
        function(data, repeat * len(photos) + i)
      if repeat:
        seconds[name].append(time.process_time() - started)
  return {name: round(1e3 * statistics.median(values) / len(photos), 3)
          for name, values in seconds.items()}
