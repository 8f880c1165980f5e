"""TensorFlow Datasets without TensorFlow: prepared array_record files, encoded image bytes."""
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from fcajax.errors import NotFoundError, UserError, near_matches
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources.base import Splits

_DEFAULT_DIR = '~/tensorflow_datasets'


class TfdsSource:
  """One split: encoded images and labels by index.

  Args:
    data: what `as_data_source` returns, with image decoding skipped.
    image, label: keys of the features.
    split: named in messages.
    image_shape: (height, width) of every image, or None where they differ.
  """

  def __init__(self, data: Sequence[Any] | Any, image: str, label: str, split: str,
               image_shape: tuple[int, int] | None):
    self._data, self._image, self._label, self._split = data, image, label, split
    self.image_shape = image_shape

  def __len__(self) -> int:
    return len(self._data)

  def read(self, index: int) -> tuple[bytes, int]:
    example = self._data[int(index)]
    return example[self._image], int(example[self._label])

  def name(self, index: int) -> str:
    for key in ('file_name', 'image/filename', 'id'):
      value = self._data[int(index)].get(key)
      if isinstance(value, (bytes, str)):
        text = value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
        return f'{self._split}[{index}] ({text})'
    return f'{self._split}[{index}]'


def default_data_dir() -> pathlib.Path:
  """Returns $TFDS_DATA_DIR, or where TFDS writes by itself."""
  return pathlib.Path(os.environ.get('TFDS_DATA_DIR') or _DEFAULT_DIR).expanduser()


def _versions(directory):
  """Version directories below, oldest first."""
  found = [path for path in directory.iterdir()
           if re.fullmatch(r'\d+\.\d+\.\d+', path.name) and (path / 'features.json').is_file()]
  return sorted(found, key=lambda path: tuple(map(int, path.name.split('.'))))


def find_prepared(name: str, data_dir: str = '') -> pathlib.Path:
  """Returns the version directory of a prepared data set.

  Args:
    name: 'NAME', 'NAME/CONFIG', 'NAME:VERSION' or 'NAME/CONFIG:VERSION'.
    data_dir: a directory that holds NAME, or the version directory itself.
  Returns:
    The newest version unless one is named.
  Raises:
    NotFoundError: nothing prepared there; the message says how to prepare it.
    UserError: an empty name, or several configs to choose from.
  """
  base = pathlib.Path(data_dir).expanduser() if data_dir else default_data_dir()
  if (base / 'features.json').is_file():
    return base
  if not name:
    raise UserError("data.name is empty; name a TFDS data set, as data.name='cifar10'")
  stem, _, version = name.partition(':')
  option = f' --data-dir {data_dir}' if data_dir else ''
  command = f'fcajax prepare {name}{option}'
  directory = base / stem
  if not directory.is_dir():
    here = sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    near = near_matches(stem, here)
    hint = f' (did you mean {", ".join(near)}?)' if near else ''
    raise NotFoundError(f"no data set '{stem}' in '{base}'{hint}; set data.data_dir to where "
                            f'it is, or prepare it with `{command}`')
  if version:
    if not (directory / version / 'features.json').is_file():
      raise NotFoundError(f"'{directory}' has no prepared version {version}; it has "
                              f'{[path.name for path in _versions(directory)]}')
    return directory / version
  versions = _versions(directory)
  if versions:
    return versions[-1]
  configs = [path for path in sorted(directory.iterdir()) if path.is_dir() and _versions(path)]
  if len(configs) == 1:
    return _versions(configs[0])[-1]
  if configs:
    names = ', '.join(f'{stem}/{path.name}' for path in configs)
    raise UserError(f'data.name={name!r} has several configs; name one of {names}')
  raise NotFoundError(f"'{directory}' holds no prepared version; prepare it with `{command}`")


def _feature_keys(builder, directory):
  """Keys of the image and of the label, from the supervised pair or else by type."""
  from tensorflow_datasets.core import features as tfds_features
  features = builder.info.features
  images = [k for k, f in features.items() if isinstance(f, tfds_features.Image)]
  labels = [k for k, f in features.items() if isinstance(f, tfds_features.ClassLabel)]
  pair = builder.info.supervised_keys
  if pair and len(pair) == 2 and pair[0] in images and pair[1] in labels:
    return pair
  if len(images) == 1 and len(labels) == 1:
    return images[0], labels[0]
  raise UserError(f"'{directory}' is no image classification set: its features are "
                   f'{sorted(features)}, of which images {images} and class labels {labels}; one '
                   'of each is needed')


def _fixed_shape(feature):
  shape = feature.shape
  return None if None in shape[:2] else tuple(int(side) for side in shape[:2])


def load_splits(settings: DataSettings, seed: int = 0) -> Splits:
  """Opens the prepared data set that the settings name.

  Raises:
    NotFoundError: it is not prepared.
    UserError: stored as TFRecord, unknown split, or no image classification set.
  """
  directory = find_prepared(settings.name, settings.data_dir)
  import tensorflow_datasets as tfds
  builder = tfds.builder_from_directory(directory)
  stored = builder.info.file_format.value if builder.info.file_format else 'tfrecord'
  formats = [stored, *(other.value for other in builder.info.alternative_file_formats)]
  if 'array_record' not in formats:
    name = settings.name or directory.parent.name
    raise UserError(
        f"'{directory}' is stored as {stored}; training reads array_record. Convert it once, "
        f'without TensorFlow, with\n  fcajax prepare {name} '
        f'--data-dir {directory}')
  image, label = _feature_keys(builder, directory)
  feature = builder.info.features[image]

  def part(split):
    try:
      data = builder.as_data_source(split=split, decoders={image: tfds.decode.SkipDecoding()})
    except (ValueError, KeyError) as error:
      raise UserError(f"'{directory}' has no split {split!r}; it has "
                       f'{sorted(builder.info.splits)} and slices of them, as train[:90%]'
                       ) from error
    if not len(data):
      raise UserError(f"split {split!r} of '{directory}' is empty")
    return TfdsSource(data, image, label, split, _fixed_shape(feature))

  evaluation = settings.eval_split
  if evaluation == 'validation' and evaluation not in builder.info.splits:
    evaluation = 'test' if 'test' in builder.info.splits else evaluation
  class_names = list(builder.info.features[label].names)
  return Splits(part(settings.train_split), part(evaluation), class_names)


