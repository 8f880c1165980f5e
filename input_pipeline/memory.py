"""Small data sets decoded once into memory, to be augmented on the device."""
import concurrent.futures
import time

import numpy as np
import psutil
from absl import logging

from fcajax.images import ImageError, decode_image
from fcajax.preprocess import Preprocessing
from input_pipeline import augment, loader
from input_pipeline.sources import ArraySource, Splits

AUTO_LIMIT = 1 << 30
"""Bytes of decoded images up to which `in_memory='auto'` keeps a data set in memory."""
_SAMPLED = 32


def is_wanted(splits, settings, preprocessing):
  """Whether the data set is to be decoded into memory.

  'auto' does so when every image already has the network's size and all of them take at most
  `AUTO_LIMIT`: then nothing is lost, whereas crops of larger images are better made from the files.
  Arrays are in memory anyway.
  """
  if settings.in_memory != 'auto':
    return settings.in_memory
  if isinstance(splits.train, ArraySource):
    return True
  shapes = {splits.train.image_shape, splits.evaluation.image_shape}
  if shapes != {preprocessing.shape}:
    return False
  count = len(splits.train) + len(splits.evaluation)
  return count * preprocessing.shape[0] * preprocessing.shape[1] * 3 <= AUTO_LIMIT


def _native_short_side(source):
  """Median short side of some images, in pixels, or 0 where none can be decoded."""
  if source.image_shape is not None:
    return min(source.image_shape)
  sides = []
  for index in np.unique(np.linspace(0, len(source) - 1, _SAMPLED).astype(int)):
    try:
      sides.append(min(decode_image(source.read(index)[0]).shape[:2]))
    except (ImageError, OSError):
      continue  # named and counted when the whole set is decoded
  return int(np.median(sides)) if sides else 0


def stored_form(source, settings, preprocessing, crops):
  """How training images are stored: a centre crop, as evaluation makes it, but of another size.

  Random resized crops are taken out of what is stored, so it keeps the images' own resolution,
  within one and two times that of evaluation, and all of the centre crop's surroundings.

  Args:
    source: of training images.
    settings: a `DataSettings`.
    preprocessing: the network's.
    crops: whether training crops at all.
  Returns:
    A `Preprocessing` of representation 'rgb'.
  """
  shape, short = preprocessing.shape, preprocessing.short_side
  if not crops or settings.crop_padding or source.image_shape == shape:
    return Preprocessing(image_size=shape, resize_size=short)
  short = int(np.clip(_native_short_side(source), short, 2 * short))
  larger = tuple(max(side, round(side * short / max(shape))) for side in shape)
  return Preprocessing(image_size=larger, resize_size=short)


def _decode_all(source, preprocessing, threads):
  """(ArraySource of the good images, indices of the others)."""
  if isinstance(source, ArraySource) and source.image_shape == preprocessing.shape:
    return source, np.zeros(0, int)
  shape = (len(source), *preprocessing.shape, 3)
  needed, free = int(np.prod(shape, dtype=np.int64)), psutil.virtual_memory().available
  if needed > 0.9 * free:
    raise ValueError(f'{len(source)} images of {shape[1]} x {shape[2]} take {needed / 1e9:.1f} GB, '
                     f'{free / 1e9:.1f} GB are free; set data.in_memory=False')
  images, labels = np.empty(shape, np.uint8), np.empty(len(source), np.int32)

  def one(index):
    try:
      data, labels[index] = source.read(index)
      augment.evaluate(data, preprocessing, images[index])
    except (ImageError, OSError):
      return False
    return True

  with concurrent.futures.ThreadPoolExecutor(threads or min(16, loader.available_cores())) as pool:
    good = np.fromiter(pool.map(one, range(len(source))), bool, len(source))
  if good.all():
    return ArraySource(images, labels), np.zeros(0, int)
  return ArraySource(images[good], labels[good]), np.flatnonzero(~good)


def load(splits, settings, preprocessing, crops, on_skipped):
  """Decodes both splits.

  Args:
    splits: `sources.Splits`.
    settings: a `DataSettings`.
    preprocessing: the network's.
    crops: whether training crops at all.
    on_skipped: called with ('train' or 'evaluation', source, indices of corrupt images).
  Returns:
    `Splits` of `ArraySource`s, without the corrupt images.
  Raises:
    ValueError: there is not enough memory.
  """
  started = time.monotonic()
  forms = {'train': stored_form(splits.train, settings, preprocessing, crops),
           'evaluation': Preprocessing(image_size=preprocessing.shape,
                                       resize_size=preprocessing.short_side)}
  decoded = {}
  for split, form in forms.items():
    source = getattr(splits, split)
    decoded[split], skipped = _decode_all(source, form, settings.threads)
    on_skipped(split, source, skipped)
  logging.info('%d images in memory (%.0f MB) after %.1f s', sum(map(len, decoded.values())),
               sum(part.images.nbytes for part in decoded.values()) / 1e6,
               time.monotonic() - started)
  return Splits(decoded['train'], decoded['evaluation'], splits.class_names, splits.mirror)
