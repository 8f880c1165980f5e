"""The work directory: whose run it holds, whether it can be written, what stands in it."""
import json
import math
import os
import pathlib
import shutil

from fcajax.train.errors import UserError

CONFIG_FILE = 'config.json'
SUMMARY_FILE = 'summary.json'


def plain(value):
  """The value as JSON has it: tuples become lists, what JSON lacks becomes text."""
  if hasattr(value, 'to_dict'):
    value = value.to_dict()
  return json.loads(json.dumps(value, default=str))


def flatten(tree, prefix=''):
  """{'optimizer.learning_rate': 0.1} of nested dictionaries."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def write_json(path, value):
  """Writes a JSON file whole or not at all."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(value, indent=2) + '\n')
  temporary.replace(path)


def prepare(workdir):
  """Creates a work directory and writes into it, so that a bad disk shows before the work.

  Raises:
    UserError: it cannot be created, written or synchronised.
  """
  workdir = pathlib.Path(workdir)
  probe = workdir / f'.probe-{os.getpid()}'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with probe.open('wb') as file:
      file.write(bytes(2**16))
      file.flush()
      os.fsync(file.fileno())
    probe.unlink()
  except OSError as error:
    probe_left = workdir.is_dir() and probe.exists()
    if probe_left:
      probe.unlink()
    raise UserError(
        f'cannot write to the work directory {workdir}: {error.strerror}; choose another with '
        '--workdir') from error


def check_space(workdir, state_bytes, checkpoints):
  """Raises UserError unless `checkpoints` checkpoints of `state_bytes` fit on the disk."""
  needed = state_bytes * checkpoints
  free = shutil.disk_usage(workdir).free
  if free < needed:
    raise UserError(
        f'the disk of the work directory {workdir} has {free / 1e6:,.0f} MB free, but '
        f'{checkpoints} checkpoints take {needed / 1e6:,.0f} MB; free some, choose another with '
        '--workdir, or lower config.checkpoint.keep')


def config_changes(workdir, config):
  """Keys whose value differs from the run that the directory holds, as readable lines.

  Args:
    workdir: the work directory.
    config: nested dictionary as `plain` gives it.

  Returns:
    A list of lines; empty where the directory is new or holds this very run.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.is_file():
    return []
  try:
    old = flatten(json.loads(path.read_text()))
  except json.JSONDecodeError:
    raise UserError(f'{path} is damaged; choose another work directory') from None
  new = flatten(config)
  absent = 'absent'
  return [
      f'  {key}: {json.dumps(old[key]) if key in old else absent} there, '
      f'{json.dumps(new[key]) if key in new else absent} now'
      for key in sorted({*old, *new}) if not _same(old.get(key), new.get(key))
      or (key in old) != (key in new)
  ]


def _same(left, right):
  both = isinstance(left, float) and isinstance(right, float)
  return left == right or (both and math.isnan(left) and math.isnan(right))


def check_owner(workdir, config, *, allow_changes=False):
  """Compares the config with that of the run whose checkpoints the directory holds.

  A directory without checkpoints holds nothing that another run could spoil.

  Returns:
    The differences, see `config_changes`.

  Raises:
    UserError: there are any, and `allow_changes` is False.
  """
  if not any((pathlib.Path(workdir) / 'checkpoints').glob('[0-9]*')):
    return []
  changes = config_changes(workdir, config)
  if changes and not allow_changes:
    raise UserError(
        f'{workdir} holds a run of another config; it differs in\n' + '\n'.join(changes) +
        '\nchoose another --workdir, or go on from its last checkpoint with the new values: '
        '--resume_with_changes')
  return changes


def read_summary(workdir):
  """The `summary.json` of a run, or {}."""
  path = pathlib.Path(workdir) / SUMMARY_FILE
  return json.loads(path.read_text()) if path.is_file() else {}
