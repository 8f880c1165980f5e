"""Data sources by name: `data.source`."""
import importlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle

from fcajax.errors import NotFoundError, UserError, did_you_mean
from fcajax.input_pipeline import classification, detection, keypoints
from fcajax.input_pipeline.settings import DataSettings, LoaderSettings
from fcajax.input_pipeline.sources.base import DataSet

# Each is called with (settings, seed). The type of its settings says which keys `config.data` has.
SOURCES: dict[str, Callable[[Any, int], DataSet]] = {
    'folder': classification.load_data_set,
    'tfds': classification.load_data_set,
    'digits': classification.load_data_set,
    'coco': detection.load_data_set,
    'voc': detection.load_data_set,
    'keypoints': keypoints.load_data_set,
}


def find(source: str) -> Callable[[Any, int], DataSet]:
  """Returns the data source behind `data.source`.

  Args:
    source: a name of `SOURCES`, 'module:Name' or 'file.py:Name'.
  Raises:
    UserError: there is none of that name.
  """
  if source in SOURCES:
    return SOURCES[source]
  module_name, colon, name = str(source).rpartition(':')
  if not colon:
    raise UserError(f'data.source={source!r} is unknown: {did_you_mean(source, SOURCES)}; a source '
                    "of your own is given as 'module:Name' or 'file.py:Name'")
  is_file = module_name.endswith('.py')
  module = _import_file(module_name) if is_file else _import_module(module_name)
  if not callable(getattr(module, name, None)):
    names = [key for key, value in vars(module).items() if callable(value) and key[0] != '_']
    raise UserError(f'data.source={source!r}: {module_name} has no class or function {name}: '
                    f'{did_you_mean(name, names)}')
  return getattr(module, name)


def settings_class(source: Callable[[Any, int], DataSet]) -> type[LoaderSettings]:
  """Returns the dataclass of the keys that `config.data` has for a data source.

  It is the annotation of the source's first argument; DataSettings where that has none.
  """
  first = next(iter(inspect.signature(source, eval_str=True).parameters.values()), None)
  kind = first.annotation if first is not None else None
  return kind if isinstance(kind, type) and issubclass(kind, LoaderSettings) else DataSettings


def _import_module(name):
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name is None or not name.startswith(error.name):
      raise  # something that the module itself imports
    raise NotFoundError(f'data.source names the module {name}, which cannot be found; give a file '
                        'as path/to/file.py:Name') from error


def _import_file(path):
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise NotFoundError(f"data.source names the file '{path}', which does not exist")
  name = f'fcajax_source_{file.stem}'
  loaded = sys.modules.get(name)
  if loaded is not None and loaded.__file__ == str(file.resolve()):
    return loaded
  spec = importlib.util.spec_from_file_location(name, file.resolve())
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  spec.loader.exec_module(module)
  # Worker processes cannot import the file by this name: they receive its classes themselves.
  cloudpickle.register_pickle_by_value(module)
  return module
