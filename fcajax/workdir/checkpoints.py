"""Checkpoints: Orbax's CheckpointManager behind one class, and reading them as NumPy."""
import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from fcajax import distributed, trees
from fcajax.errors import UserError
from fcajax.files import write_json
from fcajax.workdir.layout import METADATA_FILE

DIRECTORY = 'checkpoints'
# The key, among the metrics of a checkpoint, of the number by which checkpoints are compared.
_SCORE = '_score'
# Orbax warns about every checkpoint without metrics once it has to find the best. Version 0.1
# compared accuracies, and wrote -1 for a checkpoint without an evaluation.
_NOT_EVALUATED = {'accuracy': -1.0}


def _score(metrics: Mapping[str, float]) -> float:
  value = metrics.get(_SCORE, metrics.get('accuracy', -math.inf))
  return -math.inf if dict(metrics) == _NOT_EVALUATED or math.isnan(value) else value


def _manager(directory: pathlib.Path, *, keep: int | None = None, keep_best: bool = True,
             create: bool = True) -> ocp.CheckpointManager:
  _check_metrics(pathlib.Path(directory))
  rules = [policies.LatestN(n=keep)]
  if keep_best:
    rules.append(policies.BestN(get_metric_fn=_score, n=1))
  return ocp.CheckpointManager(
      pathlib.Path(directory).absolute(),
      options=ocp.CheckpointManagerOptions(
          best_fn=_score,
          create=create,
          cleanup_tmp_directories=create,
          preservation_policy=policies.AnyPreservationPolicy(rules)),
      item_handlers={
          'state': ocp.PyTreeCheckpointHandler(),
          'run': ocp.JsonCheckpointHandler(),
          'metadata': ocp.JsonCheckpointHandler(),
      })


def _check_metrics(directory: pathlib.Path) -> None:
  """Raises UserError for a checkpoint with damaged metrics: Orbax reads those of all of them."""
  for path in sorted(directory.glob('*/metrics/metrics')):
    try:
      good = isinstance(json.loads(path.read_text()), dict)
    except (OSError, ValueError):
      good = False
    if not good:
      folder = path.parents[1]
      raise UserError(f'the checkpoint {folder} has damaged metrics ({path.name} is not a JSON '
                      'object); move that folder away to use the other checkpoints')


def _as_dict(state: Any) -> dict[str, Any]:
  """Returns the state as a dictionary; keys that hold nothing are left out."""
  items = {
      name: getattr(state, name)
      for name in ('step', 'params', 'batch_stats', 'opt_state', 'rng', 'ema')
  }
  return {name: value for name, value in items.items() if jax.tree.leaves(value)}


class Checkpoints:
  """Writes and reads the checkpoints of one work directory.

  Each holds the whole state, the position of every process's data iterator, the history of the run
  (best evaluation and so on) and what is needed to use the model later (`metadata.json`). Writing
  goes on in the background; `wait` ends it.

  Args:
    workdir: the work directory; checkpoints lie in `checkpoints/STEP`.
    keep: how many of the newest to keep.
    keep_best: whether to keep the one with the best evaluation besides.
  """

  def __init__(self, workdir: str | pathlib.Path, *, keep: int = 2, keep_best: bool = True):
    self._manager = _manager(
        pathlib.Path(workdir) / DIRECTORY, keep=keep, keep_best=keep_best)

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *unused: object) -> None:
    self._manager.close()

  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, or None."""
    return self._manager.latest_step()

  def class_names(self, step: int) -> list[str]:
    """Returns the class names that the checkpoint of this step was trained on."""
    with _naming_damage(self._manager, step):
      return self._manager.restore(step, args=ocp.args.Composite(
          metadata=ocp.args.JsonRestore())).metadata['class_names']

  def save(self, step: int, state: Any, *, iterator: str, run: Mapping[str, Any],
           metadata: Mapping[str, Any], metrics: Mapping[str, float] | None = None,
           score: float | None = None) -> bool:
    """Starts to write a checkpoint; does nothing if this step is written already.

    Args:
      step: its number.
      state: a `TrainState` of device or host arrays.
      iterator: the data iterator's state on this process, JSON text.
      run: the history of the run, JSON-able, for `restore`.
      metadata: see `fcajax.tasks.base.Task.metadata`.
      metrics: of the evaluation at this step, or None.
      score: what makes this evaluation the best one (higher is better); None takes the accuracy.

    Returns:
      True if a checkpoint is written.
    """
    if step in self._manager.all_steps():
      return False
    return self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeSave(_as_dict(state)),
            # The key 'figures' is that of version 0.1.
            run=ocp.args.JsonSave({
                'figures': run, 'iterators': distributed.gather_text(iterator)}),
            metadata=ocp.args.JsonSave(metadata)),
        metrics=_stored_metrics(metrics, score),
        force=True)

  def add_metrics(self, step: int, metrics: Mapping[str, float], score: float) -> None:
    """Puts the metrics of a later evaluation into a checkpoint that was saved without any."""
    self.wait()
    if distributed.is_first():
      write_json(pathlib.Path(self._manager.directory) / str(step) / 'metrics' / 'metrics',
                 _stored_metrics(metrics, score))
    distributed.wait_for_all('metrics of an evaluation')
    self._manager.reload()

  def wait(self) -> None:
    """Blocks until everything is on disk; raises what went wrong while writing."""
    self._manager.wait_until_finished()
    self._manager.check_for_errors()

  def restore(self, step: int, state: Any) -> tuple[Any, str, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
      step: of `latest_step`.
      state: a `TrainState` of arrays or shapes, which the checkpoint must match.

    Returns:
      (state of NumPy arrays, this process's iterator state as JSON text, history of the run).

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
      iterators, history = list(run['iterators']), dict(run['figures'])
    if len(iterators) != jax.process_count():
      raise UserError(
          f'the checkpoint of step {step} was written by {len(iterators)} processes and '
          f'{jax.process_count()} read it; the order of the data belongs to the processes, so '
          'resume with as many, or start a new work directory with --config.init_from=OLD')
    return restored, iterators[jax.process_index()], history


def _stored_metrics(metrics: Mapping[str, float] | None, score: float | None) -> dict[str, float]:
  if metrics is None:
    return dict(_NOT_EVALUATED)
  stored = {name: float(value) for name, value in metrics.items()}
  # JSON has no infinity: an evaluation without a score counts as none.
  return stored if score is None or math.isinf(score) else stored | {_SCORE: float(score)}


@contextlib.contextmanager
def _naming_damage(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
  """Re-raises a read error as a `UserError` that names the checkpoint and which to use instead."""
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


def _restore_numpy(manager: ocp.CheckpointManager, step: int, expected: Any) -> Any:
  stored = trees.shapes(manager.item_metadata(step)['state'].tree)
  differences = trees.differences(
      stored, trees.shapes(_names_only(expected)), there='in the checkpoint', here='in this model')
  if differences:
    raise UserError(
        f'the checkpoint of step {step} in {manager.directory} is of another model or optimiser:'
        f'\n{trees.listing(differences)}\nuse another work directory, or its weights with '
        '--config.init_from')
  arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), expected)
  return manager.restore(step, args=ocp.args.Composite(
      state=ocp.args.PyTreeRestore(item=expected, restore_args=arguments))).state


def _names_only(tree: Any) -> Any:
  """Returns the tree with (named) tuples as dictionaries, as a checkpoint lists them."""
  if isinstance(tree, tuple) and hasattr(tree, '_fields'):
    return {name: _names_only(value) for name, value in zip(tree._fields, tree)}
  if isinstance(tree, (tuple, list)):
    return {str(i): _names_only(value) for i, value in enumerate(tree)}
  if isinstance(tree, dict):
    return {name: _names_only(value) for name, value in tree.items()}
  return tree


def read_metadata(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Returns the `metadata.json` of a work directory: task, model, class names, preprocessing."""
  path = pathlib.Path(workdir) / METADATA_FILE
  if not path.is_file():
    lost = (pathlib.Path(workdir) / DIRECTORY).is_dir()
    raise UserError(f'{workdir} is no work directory of a run: it has no {METADATA_FILE}' + (
        ', only checkpoints; start its run again, which writes it anew without training what was '
        'trained' if lost else "; give one of 'fcajax train'"))
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise UserError(f'{path} is damaged ({error}); start its run again, which writes it anew '
                    'without training what was trained') from error


def restore_variables(workdir: str | pathlib.Path, step: Literal['best', 'latest'] | int = 'best'
                      ) -> dict[str, Any]:
  """Reads the trained weights of a run as NumPy, whatever devices wrote them.

  Args:
    workdir: a work directory of `train.py`.
    step: 'best' (by the task's best metric; the latest if none was evaluated), 'latest', or a
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
      if step is None or _score(manager.metrics(step)) == -math.inf:
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
