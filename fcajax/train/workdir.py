"""The work directory: whose run it holds, whether it can be written, what stands in it."""
import contextlib
import errno
import json
import math
import os
import pathlib
import shutil

import jax

from fcajax.train import parallel
from fcajax.train.errors import UserError

CONFIG_FILE = 'config.json'
SUMMARY_FILE = 'summary.json'
METADATA_FILE = 'metadata.json'


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
        f'{checkpoints} checkpoints take {needed / 1e6:,.0f} MB; free some, or choose another '
        'with --workdir')


def config_changes(workdir, config, ignore=()):
  """Keys whose value differs from the run that the directory holds, as readable lines.

  Args:
    workdir: the work directory.
    config: nested dictionary as `plain` gives it.
    ignore: keys that may differ, such as 'optimizer.learning_rate'.

  Returns:
    A list of lines; empty where the directory is new or holds this very run.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.is_file():
    return []
  try:
    old = flatten(json.loads(path.read_text()))
  except (ValueError, AttributeError):
    return [f'  everything, perhaps: its {CONFIG_FILE} is damaged']
  new = flatten(config)
  absent = 'absent'
  return [
      f'  {key}: {json.dumps(old[key]) if key in old else absent} there, '
      f'{json.dumps(new[key]) if key in new else absent} now'
      for key in sorted({*old, *new}.difference(ignore))
      if not _same(old.get(key), new.get(key)) or (key in old) != (key in new)
  ]


def _same(left, right):
  both = isinstance(left, float) and isinstance(right, float)
  return left == right or (both and math.isnan(left) and math.isnan(right))


def has_checkpoint(workdir):
  """Whether the directory holds a finished checkpoint."""
  # While it is written, a checkpoint's folder has a longer name.
  return any(path.name.isdigit() for path in (pathlib.Path(workdir) / 'checkpoints').glob('*'))


def check_owner(workdir, config, *, allow_changes=False, ignore=()):
  """Compares the config with that of the run whose checkpoints the directory holds.

  A directory without checkpoints holds nothing that another run could spoil.

  Args:
    workdir: the work directory.
    config: nested dictionary as `plain` gives it.
    allow_changes: return differences instead of refusing them.
    ignore: as for `config_changes`.

  Returns:
    The differences, see `config_changes`.

  Raises:
    UserError: there are any, and `allow_changes` is False.
  """
  if not has_checkpoint(workdir):
    return []
  if (pathlib.Path(workdir) / CONFIG_FILE).is_file():
    changes = config_changes(workdir, config, ignore)
  else:
    changes = [f'  everything, perhaps: its {CONFIG_FILE} is missing']
  if changes and not allow_changes:
    raise UserError(
        f'{workdir} holds a run of another config; it differs in\n' + '\n'.join(changes) +
        '\nchoose another --workdir, or go on from its last checkpoint with the new values: '
        '--resume_with_changes')
  return changes


def check_classes(workdir, trained, class_names):
  """Compares the classes with those that the run in the directory was trained on.

  Args:
    workdir: the work directory.
    trained: class names of its newest checkpoint.
    class_names: of the data.

  Raises:
    UserError: other classes, or in another order: the same outputs would mean something else.
  """
  if trained != list(class_names):
    at = next((i for i, (old, new) in enumerate(zip(trained, class_names)) if old != new),
              min(len(trained), len(class_names)))
    raise UserError(
        f'the run in {workdir} was trained on {len(trained)} classes ({_few(trained[at:])} from '
        f'number {at} on), the data now has {len(class_names)} ({_few(class_names[at:])}); give it '
        'the same data, or start in another --workdir with --config.init_from='
        f'{workdir}')


def _few(names):
  return (', '.join(map(str, names[:4])) or 'none') + (', ...' if len(names) > 4 else '')


def read_summary(workdir):
  """The `summary.json` of a run; {} where there is none, or none that can be read."""
  path = pathlib.Path(workdir) / SUMMARY_FILE
  if not path.is_file():
    return {}
  try:
    summary = json.loads(path.read_text())
  except ValueError:
    # It follows from the checkpoints, so the run makes it again.
    return {}
  complete = isinstance(summary, dict) and all(
      isinstance(summary.get(key), int | float) for key in ('finished', 'steps', 'accuracy'))
  return summary if complete else {}


def finished_summary(workdir, config):
  """The summary, where the directory holds a run of this very config that is finished; else {}."""
  summary = read_summary(workdir)
  same = (pathlib.Path(workdir) / CONFIG_FILE).is_file() and not config_changes(workdir, config)
  return summary if summary.get('finished') and same and has_checkpoint(workdir) else {}


def open_early(workdir, config, *, allow_changes=False):
  """What training will find in the work directory, before the data is opened.

  Args:
    workdir: the work directory; created.
    config: nested dictionary as `plain` gives it.
    allow_changes: as for `check_owner`.

  Returns:
    The summary, where the directory holds this very run and it is finished; else None.

  Raises:
    UserError: the directory cannot be written, or holds a run of another config.
  """
  if jax.process_index() == 0:
    prepare(workdir)
  # A batch that is larger than the data set shrinks once the data is known.
  check_owner(workdir, config, allow_changes=allow_changes, ignore=('batch_size',))
  # Several processes decide together, in `loop.train`.
  return (finished_summary(workdir, config) or None) if jax.process_count() == 1 else None


@contextlib.contextmanager
def lock(workdir):
  """Keeps a second run out of the work directory, where the system and its disk know locks.

  Raises:
    UserError: another run is going on there; on every process of this one.
  """
  with contextlib.ExitStack() as stack:
    refused = None
    if jax.process_index() == 0:
      try:
        stack.enter_context(_lock(workdir))
      except UserError as error:
        refused = error
    if parallel.same_everywhere(refused is not None):
      raise refused or UserError(f'another run is going on in {workdir}')
    yield


@contextlib.contextmanager
def _lock(workdir):
  if os.name != 'posix':
    yield
    return
  import fcntl
  descriptor = os.open(workdir, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):
        raise UserError(f'another run is going on in {workdir} at this moment; wait for it, or '
                        'choose another --workdir') from None
      # Some network file systems have no locks; then this one is left out.
    try:
      yield
    finally:
      # A child process may still hold the descriptor, and with it the lock.
      with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
  finally:
    os.close(descriptor)
