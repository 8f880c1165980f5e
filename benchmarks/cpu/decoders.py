"""CPU time of JPEG decoders, on one core, and how well two threads share two cores.

    python -m benchmarks.cpu.decoders [PHOTOS] [--repeats 15]

PHOTOS is a directory of JPEGs (default: the two photographs of scikit-learn). The median over
interleaved passes of the CPU time an image, in milliseconds. imagecodecs, kornia-rs and PyTurboJPEG
are measured if they are installed. At 1/8 little but the entropy decoding is left, which with crop,
resize and flip bounds the training transform.
"""
import concurrent.futures
import io
import os
import pathlib
import statistics
import time

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import common
from benchmarks import photos as photographs
from benchmarks.cpu.input_pipeline import ours
from fcajax.preprocessing import host_formats


def decoders():
  """Returns name -> function of (JPEG bytes, position)."""
  buffer = np.empty(1 << 25, np.uint8)
  cases = {
      'simplejpeg, reused buffer': lambda data, _: simplejpeg.decode_jpeg(data, buffer=buffer),
      'simplejpeg': lambda data, _: simplejpeg.decode_jpeg(data),
      'OpenCV': lambda data, _: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
      'Pillow': lambda data, _: np.asarray(Image.open(io.BytesIO(data)).convert('RGB')),
      'simplejpeg at 1/8': lambda data, _: simplejpeg.decode_jpeg(
          data, min_height=1, min_width=1, min_factor=8)}
  try:
    import imagecodecs
    cases['imagecodecs'] = lambda data, _: imagecodecs.jpeg8_decode(data)
  except ImportError:
    print('imagecodecs is left out: it is not installed')
  try:
    from kornia_rs import io as kornia
    cases['kornia-rs'] = lambda data, _: kornia.decode_image_jpegturbo(data, 'rgb')
    cases['kornia-rs, zune-jpeg'] = lambda data, _: kornia.decode_image_jpeg(data)
  except ImportError:
    print('kornia-rs is left out: it is not installed')
  try:
    import turbojpeg
    turbo = turbojpeg.TurboJPEG()
    cases['PyTurboJPEG'] = lambda data, _: turbo.decode(data, pixel_format=turbojpeg.TJPF_RGB)
  except (ImportError, RuntimeError):
    print('PyTurboJPEG is left out: its wheel holds no libturbojpeg, and no system library of '
          'version 3 was found')
  return cases


def threads_speedup(function, photos, repeats):
  """Measures the throughput of two threads over that of one."""
  def run(part):
    for i, data in enumerate(part):
      function(data, i)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    ratios = []
    for _ in range(repeats):
      started = time.perf_counter()
      run(photos)
      single = time.perf_counter() - started
      started = time.perf_counter()
      list(pool.map(run, (photos[::2], photos[1::2])))
      ratios.append(single / (time.perf_counter() - started))
  return statistics.median(ratios)


def resize_alone(photos):
  """Returns crop, resize and flip of the training transform at 224, of images decoded before."""
  run = ours(224, host_formats.Rgb((224, 224)))
  pixels = {data: simplejpeg.decode_jpeg(data, 'RGB') for data in photos}
  return lambda data, position: run(pixels[data], position)


def measure(args):
  photos = photographs.read_photos(args.photos)
  cv2.setNumThreads(0)
  cases = decoders()
  with photographs.cores(1):
    times = photographs.milliseconds(
        cases | {'crop, resize and flip alone': resize_alone(photos)}, photos, args.repeats)
  rows = {name: {'milliseconds': ms} for name, ms in times.items()}
  with photographs.cores(2) as possible:
    for name, case in cases.items():
      if possible and name != 'simplejpeg, reused buffer':  # two threads would share its buffer
        rows[name]['two_threads'] = round(threads_speedup(case, photos, args.repeats), 2)
  return photographs.describe(photos) | {'decoders': rows}


def show(results):
  print(f'{results["photos"]} JPEGs, on average {results["megapixels"]} million pixels and '
        f'{results["kilobytes"]} kB; one core\n')
  print(common.markdown(['', 'ms an image', 'images/s', 'two threads on two cores'], [
      [name, f'{row["milliseconds"]:.2f}', f'{1e3 / row["milliseconds"]:.0f}',
       f'{row["two_threads"]:.2f}x' if 'two_threads' in row else '']
      for name, row in results['decoders'].items()]))


def main(argv=None):
  common.run('benchmarks.cpu.decoders', __doc__, measure, show, argv=argv, options={
      'photos': {'nargs': '?', 'type': pathlib.Path, 'metavar': 'PHOTOS'},
      '--repeats': {'type': int, 'default': 15},
  }, small={'repeats': 1})


if __name__ == '__main__':
  main()
