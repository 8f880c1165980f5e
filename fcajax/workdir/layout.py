"""The work directory: whose run it holds, whether it can be written, what stands in it."""
import contextlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import filelock
import jax
from absl import logging

from fcajax import distributed
from fcajax.errors import UserError

CONFIG_FILE = 'config.json'
SUMMARY_FILE = 'summary.json'
METADATA_FILE = 'metadata.json'
LOCK_FILE = '.lock'

# What runs of version 0.1 did under keys that their config.json does not have yet. A key that is
# new since then gets the value here that stands for what was done before it.
_BEFORE = {'data.host_format': 'auto'}
# config.task named what train.py does, before it named the task that a network is trained for.
_OLD_TASKS = ('train', 'frequency_search')


def plain(value: Any) -> Any:
  """Returns the value as JSON has it: tuples become lists, what JSON lacks becomes text."""
  if hasattr(value, 'to_dict'):
    value = value.to_dict()
  return json.loads(json.dumps(value, default=str))


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {'optimizer.learning_rate': 0.1} of nested dictionaries."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def prepare(workdir: str | pathlib.Path) -> None:
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


def check_space(workdir: str | pathlib.Path, state_bytes: int, checkpoints: int) -> None:
  """Raises UserError unless `checkpoints` checkpoints of `state_bytes` fit on the disk."""
  needed = state_bytes * checkpoints
  free = shutil.disk_usage(workdir).free
  if free < needed:
    raise UserError(
        f'the disk of the work directory {workdir} has {free / 1e6:,.0f} MB free, but '
        f'{checkpoints} checkpoints take {needed / 1e6:,.0f} MB; free some, or choose another '
        'with --workdir')


def config_changes(workdir: str | pathlib.Path, config: Mapping[str, Any],
                   ignore: Sequence[str] = ()) -> list[str]:
  """Compares the config with that of the run that the directory holds.

  Args:
    workdir: the work directory.
    config: nested dictionary as `plain` gives it.
    ignore: keys that may differ, such as 'optimizer.learning_rate'.

  Returns:
    A readable line for each key that differs; [] if the directory is new or holds this very run.
    A key without a value (None) is as good as an absent one.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  if not path.is_file():
    return []
  try:
    old = _upgraded(flatten(json.loads(path.read_text())), flatten(config))
  except (ValueError, AttributeError):
    return [f'  everything, perhaps: its {CONFIG_FILE} is damaged']
  new = flatten(config)
  absent = 'absent'
  return [
      f'  {key}: {json.dumps(old[key]) if key in old else absent} there, '
      f'{json.dumps(new[key]) if key in new else absent} now'
      for key in sorted({*old, *new}.difference(ignore)) if not _same(old.get(key), new.get(key))
  ]


def _upgraded(config: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the flat config of an earlier version's run as this version would have written it."""
  config = {key: value for key, value in _BEFORE.items() if key in now} | config
  if config.get('task') in _OLD_TASKS:
    config['task'] = 'classification'
  return config


def _same(left: Any, right: Any) -> bool:
  both = isinstance(left, float) and isinstance(right, float)
  return left == right or (both and math.isnan(left) and math.isnan(right))


def has_checkpoint(workdir: str | pathlib.Path) -> bool:
  """Returns True if the directory holds a finished checkpoint."""
  # While it is written, a checkpoint's folder has a longer name.
  return any(path.name.isdigit() for path in (pathlib.Path(workdir) / 'checkpoints').glob('*'))


def check_owner(workdir: str | pathlib.Path, config: Mapping[str, Any], *,
                allow_changes: bool = False, ignore: Sequence[str] = ()) -> list[str]:
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


def check_classes(workdir: str | pathlib.Path, trained: Sequence[str], class_names: Sequence[str]
                  ) -> None:
  """Compares the classes with those that the run in the directory was trained on.

  Args:
    workdir: the work directory.
    trained: class names of its newest checkpoint.
    class_names: of the data.

  Raises:
    UserError: other classes, or in another order: the same outputs would mean something else.
  """
  if list(trained) != list(class_names):
    at = next((i for i, (old, new) in enumerate(zip(trained, class_names)) if old != new),
              min(len(trained), len(class_names)))
    raise UserError(
        f'the run in {workdir} was trained on {len(trained)} classes ({_few(trained[at:])} from '
        f'number {at} on), the data now has {len(class_names)} ({_few(class_names[at:])}); give it '
        'the same data, or start in another --workdir with --config.init_from='
        f'{workdir}')


def _few(names: Sequence[str]) -> str:
  return (', '.join(map(str, names[:4])) or 'none') + (', ...' if len(names) > 4 else '')


def read_summary(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Returns the `summary.json` of a run; {} if there is none, or none that can be read."""
  path = pathlib.Path(workdir) / SUMMARY_FILE
  if not path.is_file():
    return {}
  try:
    summary = json.loads(path.read_text())
  except ValueError:
    # It follows from the checkpoints, so the run makes it again.
    return {}
  complete = isinstance(summary, dict) and isinstance(summary.get('best'), dict) and all(
      isinstance(summary.get(key), int) for key in ('finished', 'steps'))
  return summary if complete else {}


def finished_summary(workdir: str | pathlib.Path, config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the summary if the directory holds this very run and it is finished; else {}.

  This is the one rule that says whether a run is finished. The first process writes in the
  directory, so it decides for all.
  """
  summary = read_summary(workdir)
  same = (pathlib.Path(workdir) / CONFIG_FILE).is_file() and not config_changes(workdir, config)
  finished = bool(summary.get('finished') and same and has_checkpoint(workdir))
  return summary if distributed.same_everywhere(finished) else {}


def open_run(workdir: str | pathlib.Path, config: Mapping[str, Any], *,
             allow_changes: bool = False) -> tuple[dict[str, Any], list[str]]:
  """Creates or opens the work directory for a run of this config.

  Returns:
    (summary of the run if it is finished, else {}; keys that differ from the run that the
    directory holds, see `config_changes`).

  Raises:
    UserError: it cannot be written, or holds a run of another config and `allow_changes` is False.
  """
  if distributed.is_first():
    prepare(workdir)
  # On every process, so that none waits for one that refused.
  changes = check_owner(workdir, config, allow_changes=allow_changes)
  return finished_summary(workdir, config), changes


def open_early(workdir: str | pathlib.Path, config: Mapping[str, Any], *,
               allow_changes: bool = False) -> dict[str, Any] | None:
  """Does what `open_run` does as far as it can be done before the data is opened.

  Returns:
    The summary if the directory holds this very run and it is finished; else None.

  Raises:
    UserError: the directory cannot be written, or holds a run of another config.
  """
  if jax.process_index() == 0:
    prepare(workdir)
  # A batch that is larger than the data set shrinks once the data is known.
  check_owner(workdir, config, allow_changes=allow_changes, ignore=('batch_size',))
  # Several processes decide together, in `open_run`.
  return (finished_summary(workdir, config) or None) if jax.process_count() == 1 else None


@contextlib.contextmanager
def lock(workdir: str | pathlib.Path) -> Iterator[None]:
  """Keeps a second run out of the work directory, if its disk knows locks.

  Raises:
    UserError: another run is going on there; on every process of this one.
  """
  refused = UserError(
      f'another run is going on in {workdir} at this moment; wait for it, or choose another '
      '--workdir')
  with contextlib.ExitStack() as stack:
    taken = False
    if distributed.is_first():
      try:
        stack.enter_context(filelock.FileLock(
            pathlib.Path(workdir) / LOCK_FILE, timeout=0, fallback_to_soft=False))
      except filelock.Timeout:
        taken = True
      except (OSError, NotImplementedError) as error:
        # Some network file systems have no locks; training works there without one.
        logging.info('no lock on %s: %s', workdir, error)
    if distributed.same_everywhere(taken):
      raise refused
    yield
