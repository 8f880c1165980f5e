"""Tasks by name: those of the library, and a user's own from a module or a file."""
import importlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from fcajax.errors import UserError, did_you_mean
from fcajax.tasks.base import Task
from fcajax.tasks.classification import Classification
from fcajax.tasks.detection import Detection
from fcajax.tasks.keypoints import Keypoints

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Detection, Keypoints)}


def get(name: str) -> type[Task]:
  """Returns the task called `name`.

  Args:
    name: a name of `TASKS`, or a class of your own as 'package.module:Class' or 'file.py:Class'.
      A file or a module is executed.

  Raises:
    UserError: there is no such task.
  """
  if name in TASKS:
    return TASKS[name]
  source, colon, attribute = name.rpartition(':')
  if not colon:
    raise UserError(
        f"config.task={name!r} is unknown: {did_you_mean(name, TASKS)}; your own task is given as "
        "'file.py:Class' or 'package.module:Class'")
  module = _load_file(source) if source.endswith('.py') else _import(source, name)
  task = getattr(module, attribute, None)
  if not (isinstance(task, type) and issubclass(task, Task)):
    raise UserError(
        f'config.task={name!r}: {source} has no class {attribute} that is a fcajax.tasks.Task')
  return task


def of_metadata(metadata: Mapping[str, Any]) -> type[Task]:
  """Returns the task that the description of a trained network names.

  Only tasks of the library are looked up: a description is data and must not run code. One without
  a task is of version 0.1, which knew classification alone.

  Raises:
    UserError: a task of the user's own.
  """
  name = metadata.get('task', Classification.name)
  if name not in TASKS:
    raise UserError(
        f'the network was trained for the task {name!r}, which is not one of {", ".join(TASKS)}; '
        "name your own task's class as 'file.py:Class'")
  return TASKS[name]


def _load_file(file: str) -> Any:
  path = pathlib.Path(file)
  if not path.is_file():
    raise UserError(f'the file {file} of config.task does not exist')
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _import(module: str, name: str) -> Any:
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    # A missing import inside the module is a bug of the module and keeps its traceback.
    if error.name is not None and (module == error.name or module.startswith(f'{error.name}.')):
      raise UserError(f'config.task={name!r}: there is no module {module}') from None
    raise
