"""CPU time to make one training image ready, on one core, beside Pillow and the published method.

    python -m benchmarks.cpu.input_pipeline [PHOTOS] [--repeats 15]

PHOTOS is a directory of JPEGs (default: the two photographs of scikit-learn). Everything is
measured on one core, interleaved, one pass over all photographs at a time: the median over the
passes of the CPU time an image, in milliseconds, so that other processes hardly disturb it.

1. The training transform (decode, random resized crop, flip) at 224 and 448, beside Pillow.
2. 448 x 448 as the input of a network on 24 coefficients: this pipeline, and the published method
   rebuilt from its description (crop, JPEG at quality 100 for Y, enlarge twice, JPEG again for Cb
   and Cr, read the coefficients of both). RGB at 224 sends 150,528 bytes.
"""
import io
import os
import pathlib
import tempfile

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import common
from benchmarks import photos as photographs
from fcajax.input_pipeline.augment import host as augment
from fcajax.input_pipeline.reading import example_generator
from fcajax.input_pipeline.settings import DataSettings
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.constants import IMAGENET_MEAN, IMAGENET_STD
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection.coefficients import coefficient_subset

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def pillow_transform(size):
  """Decode, random resized crop (antialiased bilinear) and flip with Pillow."""
  def transform(data, position):
    uniform = augment.draw(example_generator(0, position))
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
  """Returns the training transform of this pipeline into a reused buffer."""
  settings = DataSettings(image_size=size, crop_area=AREA, crop_ratio=RATIO)
  transform = augment.TrainTransform(settings, Preprocessing(size), True, sender)
  out = np.empty(sender.shape, sender.dtype)
  def run(data, position):
    transform(data, out, example_generator(0, position))
    return out
  return run


def published(encode, size=448):
  """The published loader: two JPEG encodings at quality 100 and a coefficient reader."""
  import jpeglib
  crop = ours(size, host_formats.Rgb((size, size)))
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


def transforms(photos, repeats):
  """Measures the training transform: size -> name -> milliseconds."""
  results = {}
  for size in (224, 448):
    results[str(size)] = photographs.milliseconds({
        'this pipeline': ours(size, host_formats.Rgb((size, size))),
        'Pillow': pillow_transform(size),
        'Pillow, normalised float32 on the host': pillow_normalised(size)}, photos, repeats)
  return results


def coefficient_inputs(photos, repeats):
  """Measures the input of a network on 24 coefficients: name -> milliseconds and bytes."""
  size, shape = 448, (448, 448)
  scale = host_formats.coefficient_scale('24S', 16)
  senders = {
      'RGB to the device, DCT there': host_formats.Rgb(shape),
      '4:2:0 planes to the device, DCT there': host_formats.Planes(shape),
      'DCT on the host, int16, published chroma':
          host_formats.Coefficients(shape, '24S', 'full', scale, 16),
      'DCT on the host, int8, published chroma':
          host_formats.Coefficients(shape, '24S', 'full', scale * 256, 8),
      'DCT on the host, int16, 4:2:0 chroma':
          host_formats.Coefficients(shape, '24S', 'half', scale, 16)}
  cases = {name: ours(size, sender) for name, sender in senders.items()}
  sizes = {name: int(np.prod(sender.shape)) * sender.dtype.itemsize
           for name, sender in senders.items()}
  try:
    for name, encode in (('libjpeg-turbo', encode_with_turbo), ('Pillow', encode_with_pillow)):
      name = f'published method, encoding with {name}'
      cases[name] = published(encode)
      sizes[name] = 56 * 56 * 24 * 4
  except ImportError:
    print('the published method is left out: pip install jpeglib')
  times = photographs.milliseconds(cases, photos, repeats)
  return {name: {'milliseconds': times[name], 'bytes': sizes[name]} for name in cases}


def measure(args):
  photos = photographs.read_photos(args.photos)
  cv2.setNumThreads(0)
  with photographs.cores(1):
    return photographs.describe(photos) | {
        'transform': transforms(photos, args.repeats),
        'coefficients': coefficient_inputs(photos, max(1, args.repeats // 3))}


def show(results):
  print(f'{results["photos"]} JPEGs, on average {results["megapixels"]} million pixels and '
        f'{results["kilobytes"]} kB; one core')
  for size, times in results['transform'].items():
    print(f'\nTraining transform at {size}\n')
    print(common.markdown(['', 'ms an image', 'images/s', 'time of this pipeline'], [
        [name, f'{ms:.2f}', f'{1e3 / ms:.0f}', f'{ms / times["this pipeline"]:.2f}x']
        for name, ms in times.items()]))
  print('\nInput of a network on 24 coefficients (24S) at 448 x 448\n')
  print(common.markdown(['', 'ms an image', 'bytes an image'], [
      [name, f'{row["milliseconds"]:.2f}', f'{row["bytes"]:,}']
      for name, row in results['coefficients'].items()]))


def main(argv=None):
  common.run('benchmarks.cpu.input_pipeline', __doc__, measure, show, argv=argv, options={
      'photos': {'nargs': '?', 'type': pathlib.Path, 'metavar': 'PHOTOS'},
      '--repeats': {'type': int, 'default': 15},
  }, small={'repeats': 1})


if __name__ == '__main__':
  main()
