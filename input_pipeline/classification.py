"""Image classification's half of the pipeline: decoding, cropping and labels."""
from typing import Any

import jax
import numpy as np

from fcajax.errors import UserError
from fcajax.input_pipeline import memory
from fcajax.input_pipeline.augment import device as device_augment
from fcajax.input_pipeline.augment import host as host_augment
from fcajax.input_pipeline.normalization import make_preprocessing
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources import digits, folder, tfds
from fcajax.input_pipeline.sources.base import (
  Batch,
  DataSet,
  ImageSource,
  Splits,
  check_label,
)
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.spec import Preprocessing

_OPENERS = {'digits': digits.load_splits, 'folder': folder.load_splits, 'tfds': tfds.load_splits}


class ImageExamples:
  """`Examples` {'image', 'label'} of a source of images.

  Args:
    source: of the images.
    transform: writes an image: `transform(encoded or pixels, out, generator)`.
    classes: labels lie in 0 .. classes - 1; None allows any.
  """

  def __init__(self, source: ImageSource, transform: host_augment.Transform,
               classes: int | None = None):
    self._source, self._transform, self._classes = source, transform, classes

  def __len__(self) -> int:
    return len(self._source)

  def name(self, index: int) -> str:
    return self._source.name(index)

  def spec(self, group: int) -> Batch:
    del group
    sent = self._transform.host_format
    return {'image': jax.ShapeDtypeStruct(sent.shape, sent.dtype),
            'label': jax.ShapeDtypeStruct((), np.int32)}

  def load(self, index: int, out: Batch, generator: np.random.Generator | None) -> None:
    data, label = self._source.read(index)
    if self._classes is not None:
      check_label(self._source.name, index, label, self._classes)
    self._transform(data, out['image'], generator)
    out['label'][...] = label


def load_splits(settings: DataSettings, seed: int) -> Splits:
  """Opens the images that `settings.source` names: 'digits', 'folder' or 'tfds'."""
  return _OPENERS[settings.source](settings, seed)


def load_data_set(settings: DataSettings, seed: int) -> DataSet:
  """Opens the images that `settings.source` names, as the network reads them.

  Raises:
    UserError: nothing there, or not what is expected; the message names it.
  """
  # First, because it costs nothing.
  preprocessing = make_preprocessing(settings)
  return data_set(load_splits(settings, seed), settings, preprocessing)


def data_set(
    splits: Splits, settings: DataSettings, preprocessing: Preprocessing | None = None) -> DataSet:
  """Returns images and labels as the network reads them.

  Args:
    splits: the images; they are decoded into memory where the settings ask for it.
    settings: of `config.data`.
    preprocessing: what `make_preprocessing(settings)` returns; None calls it.
  Raises:
    UserError: a setting or the data is not what it should be.
  """
  preprocessing = preprocessing or make_preprocessing(settings)
  common: dict[str, Any] = {
      'class_names': list(splits.class_names), 'preprocessing': preprocessing,
      'note': splits.note, 'train_folder': splits.train_folder}
  classes = len(splits.class_names)
  if memory.is_wanted(splits, settings, preprocessing):
    augment = device_augment.make(settings, preprocessing, splits.mirror)
    decoded = memory.load(splits, settings, preprocessing, crops=augment is not None)
    return DataSet(device_augment=augment, **decoded, **common)
  if settings.crop_padding:
    raise UserError('data.crop_padding is for in-memory sets; set data.in_memory=True, or '
                    'crop_padding=0 for random resized crops')
  sent = host_formats.choose(settings, preprocessing)
  train = host_augment.TrainTransform(settings, preprocessing, splits.mirror, sent)
  evaluation = host_augment.EvaluationTransform(preprocessing, sent)
  return DataSet(train=ImageExamples(splits.train, train, classes),
                 evaluation=ImageExamples(splits.evaluation, evaluation, classes), **common)
