"""Host time of the input pipeline on one core, beside its peers, in one run.

    python benchmarks/input_pipeline.py [PHOTOS] [--repeats 15]

PHOTOS is a directory of JPEGs (default: ../shared/data/photos). Everything is measured on one core,
interleaved, one pass over all photographs at a time; a figure is the median over the passes of the
CPU time an image, in milliseconds, so that other processes hardly disturb it. Three tables:

1. the training transform (decode, random resized crop, flip) at 224 and 448, beside Pillow;
2. the decoders alone, and how well two threads share two cores. imagecodecs, kornia-rs and
   PyTurboJPEG are measured where they are installed. At 1/8 little but the entropy decoding is
   left, which with the resize bounds the training transform;
3. 448 x 448 as the input of a network on 24 coefficients: ours, and the published method rebuilt
   from its description (crop, JPEG at quality 100 for Y, enlarge twice, JPEG again for Cb and Cr,
   read the coefficients of both).
"""
import argparse
import concurrent.futures
import io
import os
import pathlib
import statistics as stats
import sys
import tempfile
import time

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import simplejpeg
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fcajax.ops.coefficients import coefficient_subset  # noqa: E402
from fcajax.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing  # noqa: E402
from input_pipeline import augment, wire  # noqa: E402
from input_pipeline.settings import DataSettings  # noqa: E402

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def pillow_transform(size):
  """Decode, random resized crop (antialiased bilinear) and flip with Pillow."""
  def transform(data, position):
    uniform = augment.draw(0, position)
    with Image.open(io.BytesIO(data)) as image:
      image = image.convert('RGB')
    top, left, rows, columns = augment.random_crop(*image.size[::-1], AREA, RATIO, uniform)
    image = image.crop((left, top, left + columns, top + rows))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if uniform[-1] < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)
  return transform


def pillow_normalised(size):
  """The same with torchvision's ToTensor and Normalize: float32 planes on the host."""
  crop = pillow_transform(size)
  mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
  def transform(data, position):
    planes = np.ascontiguousarray(crop(data, position).transpose(2, 0, 1)).astype(np.float32)
    return (planes / 255 - mean) / std
  return transform


def ours(size, sender):
  settings = DataSettings(image_size=size, crop_area=AREA, crop_ratio=RATIO)
  transform = augment.TrainTransform(settings, Preprocessing(size), True, 0, sender)
  out = np.empty(sender.shape, sender.dtype)
  def run(data, position):
    transform(data, position, out)
    return out
  return run


def published(encode, size=448):
  """The published loader: two JPEG encodings at quality 100 and a coefficient reader."""
  import jpeglib
  crop = ours(size, wire.Rgb((size, size)))
  subset = coefficient_subset('24S')
  memory = '/dev/shm' if os.path.isdir('/dev/shm') else None
  file = pathlib.Path(tempfile.mkdtemp(dir=memory)) / 'image.jpg'

  def blocks(image):
    file.write_bytes(encode(image))
    return jpeglib.read_dct(str(file))

  def select(quantised, table, indices):
    flat = quantised.reshape(*quantised.shape[:2], 64)[..., indices]
    return flat * table.ravel()[list(indices)].astype(np.float32)

  def transform(data, position):
    image = crop(data, position)
    luma = blocks(image)
    enlarged = cv2.resize(image, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
    chroma = blocks(enlarged)
    parts = [select(luma.Y, luma.qt[0], subset.y)]
    for plane, indices in ((chroma.Cb, subset.cb), (chroma.Cr, subset.cr)):
      parts.append(select(plane, chroma.qt[1], indices))
    return np.concatenate(parts, -1)

  return transform


def encode_with_pillow(image):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=100, subsampling=2)
  return buffer.getvalue()


def encode_with_turbo(image):
  return simplejpeg.encode_jpeg(image, quality=100, colorsubsampling='420')


def measure(cases, photos, repeats):
  """{name: milliseconds an image}, medians over interleaved passes."""
  seconds = {name: [] for name in cases}
  for repeat in range(repeats + 1):
    for name, function in cases.items():
      started = time.process_time()
      for i, data in enumerate(photos):
        function(data, repeat * len(photos) + i)
      if repeat:
        seconds[name].append(time.process_time() - started)
  return {name: 1e3 * stats.median(values) / len(photos) for name, values in seconds.items()}


def show(title, header, rows):
  print(f'\n{title}\n')
  print('| ' + ' | '.join(header) + ' |')
  print('|' + '---|' * len(header))
  for row in rows:
    print('| ' + ' | '.join(row) + ' |')


def transform_table(photos, repeats):
  for size in (224, 448):
    cases = {'this pipeline': ours(size, wire.Rgb((size, size))),
             'Pillow': pillow_transform(size),
             'Pillow, normalised float32 on the host': pillow_normalised(size)}
    result = measure(cases, photos, repeats)
    base = result['this pipeline']
    show(f'Training transform at {size}', ('', 'ms an image', 'images/s', 'time of this pipeline'),
         [(name, f'{ms:.2f}', f'{1e3 / ms:.0f}', f'{ms / base:.2f}x')
          for name, ms in result.items()])


def decoders():
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
  """Throughput of two threads over that of one."""
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
  return stats.median(ratios)


def resize_alone(photos):
  """The crop, resize and flip of the training transform at 224, of images decoded before."""
  run = ours(224, wire.Rgb((224, 224)))
  pixels = {data: simplejpeg.decode_jpeg(data, 'RGB') for data in photos}
  return lambda data, position: run(pixels[data], position)


def decoder_table(photos, repeats, cores):
  cases = decoders()
  threaded = dict(cases)
  cases['crop, resize and flip alone'] = resize_alone(photos)
  result = measure(cases, photos, repeats)
  threaded.pop('simplejpeg, reused buffer')  # two threads would share its buffer
  speedup = {}
  if len(cores) > 1 and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, cores[:2])
    speedup = {name: threads_speedup(case, photos, repeats) for name, case in threaded.items()}
    os.sched_setaffinity(0, cores[:1])
  show('Decoders alone', ('', 'ms an image', 'images/s', 'two threads on two cores'),
       [(name, f'{ms:.2f}', f'{1e3 / ms:.0f}',
         f'{speedup[name]:.2f}x' if name in speedup else '') for name, ms in result.items()])


def dct_table(photos, repeats):
  size, shape = 448, (448, 448)
  scale = wire.coefficient_scale('24S', 16)
  cases, sizes = {}, {}
  for name, sender in (
      ('RGB to the device, DCT there', wire.Rgb(shape)),
      ('4:2:0 planes to the device, DCT there', wire.Planes(shape)),
      ('DCT on the host, int16, published chroma',
       wire.Coefficients(shape, '24S', 'full', scale, 16)),
      ('DCT on the host, int8, published chroma',
       wire.Coefficients(shape, '24S', 'full', scale * 256, 8)),
      ('DCT on the host, int16, 4:2:0 chroma',
       wire.Coefficients(shape, '24S', 'half', scale, 16))):
    cases[name] = ours(size, sender)
    sizes[name] = int(np.prod(sender.shape)) * sender.dtype.itemsize
  try:
    for name, encode in (('libjpeg-turbo', encode_with_turbo), ('Pillow', encode_with_pillow)):
      name = f'published method, encoding with {name}'
      cases[name] = published(encode)
      sizes[name] = 56 * 56 * 24 * 4
  except ImportError:
    print('the published method is left out: pip install jpeglib')
  result = measure(cases, photos, repeats)
  base = min(result.values())
  show('Input of a network on 24 coefficients (24S) at 448 x 448; RGB at 224 sends 150,528 bytes',
       ('', 'ms an image', 'images/s', 'time of the fastest', 'bytes an image'),
       [(name, f'{ms:.2f}', f'{1e3 / ms:.0f}', f'{ms / base:.1f}x', f'{sizes[name]:,}')
        for name, ms in result.items()])


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('photos', nargs='?', type=pathlib.Path,
                      default=ROOT.parent / 'shared' / 'data' / 'photos')
  parser.add_argument('--repeats', type=int, default=15)
  options = parser.parse_args()
  photos = [path.read_bytes() for path in sorted(options.photos.iterdir())
            if path.suffix.lower() in ('.jpg', '.jpeg')]
  if not photos:
    parser.error(f"no JPEG in '{options.photos}'")
  cv2.setNumThreads(0)
  cores = []
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
  pixels = [np.prod(simplejpeg.decode_jpeg_header(data)[:2]) for data in photos]
  print(f'{len(photos)} JPEGs, on average {np.mean(pixels) / 1e6:.2f} million pixels and '
        f'{np.mean([len(data) for data in photos]) / 1e3:.0f} kB; one core')
  transform_table(photos, options.repeats)
  decoder_table(photos, options.repeats, cores)
  dct_table(photos, max(3, options.repeats // 3))


if __name__ == '__main__':
  main()
