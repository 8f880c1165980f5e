"""The commands that a user wants after a run, each of them valid as printed."""
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fcajax.tasks import samples


def _tool(name: str) -> str:
  """Returns how to call a program that came with this Python from the current directory."""
  beside = pathlib.Path(sys.executable).parent / name
  found = shutil.which(name)
  if not beside.exists() or (found and os.path.samefile(found, beside)):
    return name
  relative = os.path.relpath(beside)
  return shlex.quote(str(beside) if relative.startswith('..') else relative)


def _flag(key: str, value: Any) -> str:
  return shlex.quote(f'--config.{key}={value}')


def commands(workdir: str | pathlib.Path, config: ConfigDict, *, config_path: str,
             overrides: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns (what it does, command) pairs for a finished run.

  Args:
    workdir: its work directory.
    config: its config.
    config_path: as given to --config.
    overrides: {'optimizer.learning_rate': 0.05} as given on the command line.
  """
  train = f'{_tool("fcajax")} train'
  directory = shlex.quote(str(workdir))
  given = [
      _flag(key, value) for key, value in overrides.items()
      if key not in ('num_epochs', 'num_steps')]
  longer = (
      _flag('num_steps', 2 * config.num_steps) if config.num_steps
      else _flag('num_epochs', 2 * config.num_epochs))
  result = []
  image = samples.find(workdir)
  if image is not None:
    result.append(('classify images', f'{_tool("fcajax")} predict {directory} '
                   f'{shlex.quote(str(image))}'))
  result += [
      ('watch the curves', f'{_tool("tensorboard")} --logdir {directory}'),
      ('train twice as long', ' '.join([
          train, '--config', shlex.quote(config_path), '--workdir', directory, *given, longer,
          '--resume_with_changes'])),
  ]
  if samples.is_trainable(workdir):
    folder = shlex.quote(str(pathlib.Path(workdir) / samples.DIRECTORY))
    result.append((
        "train on a folder (put yours in place of this run's sample images)",
        f'{train} --config folder --config.data.root={folder} '
        '--config.num_epochs=5'))
  return result


def describe(workdir: str | pathlib.Path, config: ConfigDict, **arguments: Any) -> str:
  """Returns the text that a finished run ends with; see `commands` for the arguments."""
  lines = [f'\nresults in {workdir}; what next:']
  for what, command in commands(workdir, config, **arguments):
    lines.append(f'  {what}:\n    {command}')
  return '\n'.join(lines)
