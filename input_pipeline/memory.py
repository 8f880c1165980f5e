"""Images decoded once into memory, to be augmented on the device."""
import concurrent.futures
import time
from typing import Any

import numpy as np
import psutil
from absl import logging

from fcajax.errors import UserError
from fcajax.input_pipeline.augment import host as augment
from fcajax.input_pipeline.reading import available_cores
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources.base import (
  SKIPPED_ERRORS,
  ArrayExamples,
  ArraySource,
  ImageSource,
  Splits,
  check_label,
)
from fcajax.preprocessing.decode import decode_image
from fcajax.preprocessing.spec import Preprocessing

# Bytes of decoded images up to which `in_memory='auto'` keeps a data set in memory.
AUTO_LIMIT = 1 << 30
_SAMPLED = 32


def is_wanted(splits: Splits, settings: DataSettings, preprocessing: Preprocessing) -> bool:
  """Returns True if the data set is to be decoded into memory.

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
  for index in np.unique(np.linspace(0, len(source) - 1, _SAMPLED).astype(int)).tolist():
    try:
      sides.append(min(decode_image(source.read(index)[0]).shape[:2]))
    except SKIPPED_ERRORS:
      continue  # named and counted when the whole set is decoded
  return int(np.median(sides)) if sides else 0


def stored_form(source: ImageSource, settings: DataSettings, preprocessing: Preprocessing,
                crops: bool) -> Preprocessing:
  """Returns how training images are stored: a centre crop as in evaluation, of another size.

  Random resized crops are taken out of what is stored, so it keeps the images' own resolution,
  within one and two times that of evaluation, and all of the centre crop's surroundings.

  Args:
    source: of training images.
    settings: of `config.data`.
    preprocessing: of the network.
    crops: False if training does not crop.
  """
  shape, short = preprocessing.shape, preprocessing.short_side
  if not crops or settings.crop_padding or source.image_shape == shape:
    return Preprocessing(image_size=shape, resize_size=short)
  short = int(np.clip(_native_short_side(source), short, 2 * short))
  larger = tuple(max(side, round(side * short / max(shape))) for side in shape)
  return Preprocessing(image_size=larger, resize_size=short)


def _decode_all(source, preprocessing, threads, classes):
  """(ArrayExamples of the good images, (number of images, [(name, reason)] of the others))."""
  count = len(source)
  if isinstance(source, ArraySource) and source.image_shape == preprocessing.shape:
    for index in np.flatnonzero((source.labels < 0) | (source.labels >= classes)).tolist():
      check_label(source.name, index, int(source.labels[index]), classes)
    return ArrayExamples({'image': source.images, 'label': source.labels}), (count, [])
  shape = (count, *preprocessing.shape, 3)
  needed, free = int(np.prod(shape, dtype=np.int64)), psutil.virtual_memory().available
  if needed > 0.9 * free:
    raise UserError(f'{count} images of {shape[1]} x {shape[2]} take {needed / 1e9:.1f} GB, '
                    f'{free / 1e9:.1f} GB are free; set data.in_memory=False')
  images, labels = np.empty(shape, np.uint8), np.empty(count, np.int32)

  def one(index):
    try:
      data, label = source.read(index)
      check_label(source.name, index, label, classes)
      labels[index] = label
      augment.evaluate(data, preprocessing, images[index])
    except SKIPPED_ERRORS as error:
      return str(error)
    return None

  with concurrent.futures.ThreadPoolExecutor(threads or min(16, available_cores())) as pool:
    reasons = list(pool.map(one, range(count)))
  good = np.array([reason is None for reason in reasons])
  bad = [(source.name(index), reasons[index]) for index in np.flatnonzero(~good).tolist()]
  if bad:
    images, labels = images[good], labels[good]
  return ArrayExamples({'image': images, 'label': labels}), (count, bad)


def load(splits: Splits, settings: DataSettings, preprocessing: Preprocessing, *,
         crops: bool) -> dict[str, Any]:
  """Decodes both splits.

  Args:
    splits: of images.
    settings: of `config.data`.
    preprocessing: of the network.
    crops: False if training does not crop.
  Returns:
    `train`, `evaluation` and `left_out` of a `DataSet`.
  Raises:
    UserError: there is not enough memory, or a label is of no class.
  """
  started = time.monotonic()
  forms = {'train': stored_form(splits.train, settings, preprocessing, crops),
           'evaluation': Preprocessing(image_size=preprocessing.shape,
                                       resize_size=preprocessing.short_side)}
  decoded, left_out = {}, {}
  for split, form in forms.items():
    decoded[split], left_out[split] = _decode_all(
        getattr(splits, split), form, settings.threads, len(splits.class_names))
  logging.info('%d images in memory (%.0f MB) after %.1f s', sum(map(len, decoded.values())),
               sum(part.arrays['image'].nbytes for part in decoded.values()) / 1e6,
               time.monotonic() - started)
  return {**decoded, 'left_out': left_out}
