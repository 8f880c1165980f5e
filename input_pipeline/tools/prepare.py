"""Prepares a TFDS data set once, as array_record files that training reads without TensorFlow.

A data set that is already prepared as TFRecord is converted, record by record, without TensorFlow:
the array_record files are written beside the TFRecord files, which stay. Anything else is
downloaded and built by TFDS. Builders that encode their own images (CIFAR-10, MNIST, ...) need
TensorFlow for that one step: pip install 'fcajax[prepare]'.
"""
import importlib.util
import json
import os
import pathlib
import struct
import sys
from collections.abc import Callable, Iterator

from fcajax.errors import UserError, near_matches
from fcajax.input_pipeline.sources.tfds import default_data_dir, find_prepared

_LENGTH = struct.Struct('<QI')


class PrepareError(UserError):
  """The data set cannot be prepared; the message says why and what to do."""


def read_tfrecords(path: str | os.PathLike) -> Iterator[bytes]:
  """Yields the records of a TFRecord file.

  Layout: length (uint64), masked CRC of the length (uint32), data, masked CRC of the data (uint32),
  little endian. The checksums are not verified.

  Raises:
    PrepareError: the file is cut short.
  """
  with open(path, 'rb') as file:
    while header := file.read(_LENGTH.size):
      size = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else 0
      record = file.read(size + 4)
      if len(header) < _LENGTH.size or len(record) < size + 4:
        raise PrepareError(f"'{path}' is cut short; copy or build the data set again")
      yield record[:-4]


def convert(directory: str | os.PathLike, progress: Callable[[str], None] = print) -> int:
  """Writes array_record files beside the TFRecord files of a prepared data set.

  Args:
    directory: the version directory.
    progress: called with a line of text a file.
  Returns:
    The number of records.
  Raises:
    PrepareError: no TFRecord files, or one that is cut short or has another number of records than
      the data set says.
  """
  from array_record.python import array_record_module
  directory = pathlib.Path(directory)
  info_path = directory / 'dataset_info.json'
  info = json.loads(info_path.read_text())
  expected = {split['name']: sum(map(int, split['shardLengths'])) for split in info['splits']}
  shards = sorted(path for path in directory.iterdir() if '.tfrecord-' in path.name)
  if not shards:
    raise PrepareError(f"'{directory}' has no TFRecord files")
  found = dict.fromkeys(expected, 0)
  for number, shard in enumerate(shards):
    target = directory / shard.name.replace('.tfrecord-', '.array_record-')
    unfinished = target.with_name(target.name + '.incomplete')
    # One record a group: training reads them in random order.
    writer = array_record_module.ArrayRecordWriter(os.fspath(unfinished), 'group_size:1')
    try:
      count = 0
      for record in read_tfrecords(shard):
        writer.write(record)
        count += 1
    finally:
      writer.close()
    os.replace(unfinished, target)
    split = shard.name.split('.tfrecord-')[0].removeprefix(f"{info['name']}-")
    found[split] = found.get(split, 0) + count
    progress(f'{number + 1}/{len(shards)} {target.name}: {count} records')
  if found != expected:
    raise PrepareError(f"the files of '{directory}' hold {found} records, dataset_info.json says "
                       f'{expected}; build the data set again')
  formats = info.setdefault('alternativeFileFormats', [])
  if 'array_record' not in formats:
    formats.append('array_record')
    unfinished = info_path.with_name('dataset_info.json.incomplete')
    unfinished.write_text(json.dumps(info, indent=2))
    os.replace(unfinished, info_path)
  return sum(found.values())


def _load_module(path):
  """Imports a file with a TFDS builder and returns the builder's name."""
  import tensorflow_datasets as tfds
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[path.stem] = module
  spec.loader.exec_module(module)
  builders = [value for value in vars(module).values()
              if isinstance(value, type) and issubclass(value, tfds.core.DatasetBuilder)
              and value.__module__ == path.stem]
  if len(builders) != 1:
    raise PrepareError(f"'{path}' defines {len(builders)} TFDS builders; one is expected")
  return builders[0].name


def _open_builder(name, data_dir):
  import tensorflow_datasets as tfds
  if name.endswith('.py'):
    path = pathlib.Path(name)
    if not path.is_file():
      raise PrepareError(f"no such file: '{name}'")
    name = _load_module(path)
  try:
    return tfds.builder(name, data_dir=data_dir, file_format='array_record')
  except tfds.core.DatasetNotFoundError as error:
    known = tfds.list_builders(with_community_datasets=False)
    near = near_matches(name, known)
    hint = f'; did you mean {", ".join(near)}?' if near else ''
    raise PrepareError(f'TFDS knows no data set {name!r}{hint}') from error


def _needs_tensorflow(error):
  """Returns True if an error was caused by TensorFlow being absent."""
  while error is not None:
    if isinstance(error, ImportError) and (error.name or '').split('.')[0] == 'tensorflow':
      return True
    error = error.__cause__ or error.__context__
  return False


def prepare(
    name: str, data_dir: str = '', progress: Callable[[str], None] = print) -> pathlib.Path:
  """Makes a data set readable for training.

  Args:
    name: TFDS name, or a .py file with a builder.
    data_dir: where prepared data sets live; '' for TFDS's default.
    progress: called with lines of text.
  Returns:
    The version directory.
  Raises:
    PrepareError: unknown name, TensorFlow is needed and missing, or damaged files.
  """
  base = data_dir or default_data_dir()
  try:
    directory = None if name.endswith('.py') else find_prepared(name, data_dir)
  except FileNotFoundError:
    directory = None
  if directory is not None:
    info = json.loads((directory / 'dataset_info.json').read_text())
    formats = [info.get('fileFormat', 'tfrecord'), *info.get('alternativeFileFormats', [])]
    if 'array_record' in formats:
      progress(f'{directory} is prepared already')
    else:
      count = convert(directory, progress)
      progress(f'{count} records converted in {directory}')
    return directory
  try:
    builder = _open_builder(name, os.fspath(base))
    builder.download_and_prepare()
  except PrepareError:
    raise
  except Exception as error:
    if _needs_tensorflow(error):
      raise PrepareError(
          f'the builder of {name!r} needs TensorFlow to encode its examples. Install it for this '
          "one step with\n  pip install 'fcajax[prepare]'\nand run the command again; training "
          'does not import it') from error
    raise
  return pathlib.Path(builder.data_dir)
