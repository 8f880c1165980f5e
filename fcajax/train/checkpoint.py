"""Checkpoints: Orbax's CheckpointManager behind one class, and reading them as NumPy."""
import contextlib
import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from fcajax.train.errors import UserError
from fcajax.train.optimizer import path_name
from fcajax.train.workdir import METADATA_FILE, write_json

DIRECTORY = 'checkpoints'


# Orbax warns about every checkpoint without figures once it has to find the best.
_NOT_EVALUATED = {'accuracy': -1.0}


def _accuracy(metrics):
  return metrics['accuracy']


def _manager(directory, *, keep=None, keep_best=True, create=True):
  rules = [policies.LatestN(n=keep)]
  if keep_best:
    rules.append(policies.BestN(get_metric_fn=_accuracy, n=1))
  return ocp.CheckpointManager(
      pathlib.Path(directory).absolute(),
      options=ocp.CheckpointManagerOptions(
          best_fn=_accuracy,
          create=create,
          cleanup_tmp_directories=create,
          preservation_policy=policies.AnyPreservationPolicy(rules)),
      item_handlers={
          'state': ocp.PyTreeCheckpointHandler(),
          'run': ocp.JsonCheckpointHandler(),
          'metadata': ocp.JsonCheckpointHandler(),
      })


def _as_dict(state):
  """The state as a dictionary; keys that hold nothing are left out."""
  items = {
      name: getattr(state, name)
      for name in ('step', 'params', 'batch_stats', 'opt_state', 'rng', 'ema')
  }
  return {name: value for name, value in items.items() if jax.tree.leaves(value)}


class Checkpoints:
  """Writes and reads the checkpoints of one work directory.

  Each holds the whole state, where every process's data iterator stands, the run's own figures
  and what is needed to use the model later (name, class names, preprocessing). Writing goes on
  in the background; `wait` ends it.

  Args:
    workdir: the work directory; checkpoints lie in `checkpoints/STEP`.
    keep: how many of the newest to keep.
    keep_best: whether to keep the one of the best evaluation accuracy besides.
  """

  def __init__(self, workdir, *, keep=2, keep_best=True):
    self._manager = _manager(
        pathlib.Path(workdir) / DIRECTORY, keep=keep, keep_best=keep_best)

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._manager.close()

  def latest_step(self):
    """The step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def class_names(self, step):
    """The class names that the checkpoint of this step was trained on."""
    with _naming_damage(self._manager, step):
      return self._manager.restore(step, args=ocp.args.Composite(
          metadata=ocp.args.JsonRestore())).metadata['class_names']

  def save(self, step, state, *, iterator, run, metadata, metrics=None):
    """Starts to write a checkpoint; does nothing where this step is written already.

    Args:
      step: int.
      state: a `TrainState` of device or host arrays.
      iterator: the data iterator's state on this process, JSON text.
      run: dictionary of the run's figures, for `restore`.
      metadata: see `fcajax.train.loop`.
      metrics: figures of the evaluation at this step (with 'accuracy'), or None.

    Returns:
      Whether a checkpoint was written.
    """
    if step in self._manager.all_steps():
      return False
    return self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeSave(_as_dict(state)),
            run=ocp.args.JsonSave({'figures': run, 'iterators': _from_all_processes(iterator)}),
            metadata=ocp.args.JsonSave(metadata)),
        metrics={k: float(v) for k, v in (metrics or _NOT_EVALUATED).items()},
        force=True)

  def add_metrics(self, step, metrics):
    """Puts the figures of a later evaluation into a checkpoint that was saved without any."""
    self.wait()
    if jax.process_index() == 0:
      write_json(pathlib.Path(self._manager.directory) / str(step) / 'metrics' / 'metrics',
                 {k: float(v) for k, v in metrics.items()})
    if jax.process_count() > 1:
      from jax.experimental import multihost_utils
      multihost_utils.sync_global_devices('metrics of an evaluation')
    self._manager.reload()

  def wait(self):
    """Blocks until everything is on disk; raises what went wrong while writing."""
    self._manager.wait_until_finished()
    self._manager.check_for_errors()

  def restore(self, step, state):
    """Reads a checkpoint.

    Args:
      step: of `latest_step`.
      state: a `TrainState` of arrays or shapes, which the checkpoint must match.

    Returns:
      (state of NumPy arrays, this process's iterator state as JSON text, the run's figures).

    Raises:
      UserError: the checkpoint is of another model or optimiser, or of another number of
        processes.
    """
    expected = _as_dict(state)
    with _naming_damage(self._manager, step):
      values = _restore_numpy(self._manager, step, expected)
      restored = state.replace(**{name: values[name] for name in expected})
      run = self._manager.restore(
          step, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
    if len(run['iterators']) != jax.process_count():
      raise UserError(
          f'the checkpoint of step {step} was written by {len(run["iterators"])} processes and '
          f'{jax.process_count()} read it; the order of the data belongs to the processes, so '
          'resume with as many, or start a new work directory with --config.init_from=OLD')
    return restored, run['iterators'][jax.process_index()], run['figures']


@contextlib.contextmanager
def _naming_damage(manager, step):
  """Turns what a reader says about a checkpoint that it cannot read into what the user can do."""
  try:
    yield
  except (UserError, MemoryError):
    raise
  except Exception as error:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    folder = pathlib.Path(manager.directory) / str(step)
    others = [other for other in manager.all_steps() if other != step]
    way = (f'if it is damaged, move that folder away to use the checkpoint of step {max(others)}'
           if others else 'there is no other one; if it is damaged, use another work directory')
    raise UserError(f'the checkpoint {folder} cannot be read ({type(error).__name__}: {reason}); '
                    f'{way}') from error


def _from_all_processes(text):
  """The texts of all processes in their order; a collective call where there are several."""
  if jax.process_count() == 1:
    return [text]
  from jax.experimental import multihost_utils
  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array([data.size]))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[:data.size] = data
  rows = multihost_utils.process_allgather(padded)
  return [bytes(row[:int(size)]).decode() for row, size in zip(rows, sizes.ravel())]


def _paths(tree):
  """{'params/head/kernel': shape} of a tree of arrays, shapes or metadata."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _restore_numpy(manager, step, expected):
  stored = _paths(manager.item_metadata(step)['state'].tree)
  differences = _differences(stored, _paths(_names_only(expected)))
  if differences:
    raise UserError(
        f'the checkpoint of step {step} in {manager.directory} is of another model or optimiser:'
        f'\n{differences}\nuse another work directory, or its weights with --config.init_from')
  arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), expected)
  return manager.restore(step, args=ocp.args.Composite(
      state=ocp.args.PyTreeRestore(item=expected, restore_args=arguments))).state


def _names_only(tree):
  """The tree with tuples and named tuples as dictionaries, as a checkpoint lists them."""
  if isinstance(tree, tuple) and hasattr(tree, '_fields'):
    return {name: _names_only(value) for name, value in zip(tree._fields, tree)}
  if isinstance(tree, (tuple, list)):
    return {str(i): _names_only(value) for i, value in enumerate(tree)}
  if isinstance(tree, dict):
    return {name: _names_only(value) for name, value in tree.items()}
  return tree


def _differences(stored, expected, limit=8):
  lines = []
  for name in sorted({*stored, *expected}):
    if stored.get(name) == expected.get(name):
      continue
    if name not in stored:
      lines.append(f'  {name} {expected[name]} is missing')
    elif name not in expected:
      lines.append(f'  {name} {stored[name]} is not in this model')
    else:
      lines.append(f'  {name} is {stored[name]}, this model has {expected[name]}')
  if len(lines) > limit:
    lines = lines[:limit] + [f'  and {len(lines) - limit} more']
  return '\n'.join(lines)


def read_metadata(workdir):
  """The `metadata.json` of a work directory: model, class names, preprocessing."""
  path = pathlib.Path(workdir) / METADATA_FILE
  if not path.is_file():
    raise UserError(f'{workdir} is no work directory of a run: it has no {METADATA_FILE}')
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f'{path} is damaged ({error}); start its run again, which writes it anew '
                    'without training what was trained') from error


def restore_variables(workdir, step='best'):
  """Reads the trained weights of a run as NumPy, whatever devices wrote them.

  Args:
    workdir: a work directory of `train.py`.
    step: 'best' (by evaluation accuracy; the latest where none was evaluated), 'latest', or a
      step.

  Returns:
    {'params': ..., 'batch_stats': ...}, nested dictionaries of NumPy arrays for `model.apply`.
    A run with `config.ema_decay` gives the averaged parameters.

  Raises:
    UserError: no checkpoint there, or not of that step.
  """
  directory = pathlib.Path(workdir) / DIRECTORY
  if not directory.is_dir():
    raise UserError(f'{workdir} holds no checkpoints: there is no {DIRECTORY}/ in it')
  with _manager(directory, create=False) as manager:
    steps = manager.all_steps()
    if not steps:
      raise UserError(f'{directory} holds no finished checkpoint')
    if step == 'best':
      step = manager.best_step()
      if step is None or manager.metrics(step) == _NOT_EVALUATED:
        step = manager.latest_step()
    elif step == 'latest':
      step = manager.latest_step()
    if step not in steps:
      raise UserError(f'{directory} holds no checkpoint of step {step}; it has {sorted(steps)}')
    with _naming_damage(manager, step):
      tree = manager.item_metadata(step)['state'].tree
      params = 'ema' if 'ema' in tree else 'params'
      wanted = {name: tree[name] for name in (params, 'batch_stats') if name in tree}
      arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      values = manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
          item=wanted, restore_args=arguments, partial_restore=True))).state
  return {'params': values[params], 'batch_stats': values.get('batch_stats', {})}
