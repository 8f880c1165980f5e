"""Runs the experiment of a config: joins the input pipeline, the trainer and the search."""
import os
from collections.abc import Mapping
from typing import Any

import jax

from fcajax import input_pipeline, tasks
from fcajax.configs.base import checks
from fcajax.search import run as frequency_search
from fcajax.train import loop, next_steps, report
from fcajax.train.plan import check_config, fitting_batch_size
from fcajax.workdir import layout

# Shells and schedulers report a process that ended through a signal like this.
_SIGNAL_EXIT = 128


def run(config: Any, workdir: str, *, config_name: str, overrides: Mapping[str, Any],
        resume_with_changes: bool = False) -> int:
  """Runs the config's experiment in `workdir`; returns the exit status.

  Args:
    config: the experiment.
    workdir: where its results go.
    config_name: the config as the user named it, and
    overrides: the keys that the user set, for the commands that a finished run prints.
    resume_with_changes: continue in a work directory whose run had another config.

  Raises:
    UserError: a value of the config, the data or the work directory cannot be used.
  """
  checks.check_config(config)
  check_config(config)
  if 'search' in config:
    summary = frequency_search.run(config, workdir, create_data(config))
  else:
    summary = _train(config, workdir, resume_with_changes)
    if summary['finished']:
      print(next_steps.describe(workdir, config, config_path=config_name, overrides=overrides))
  return _SIGNAL_EXIT + summary['stopped_by'] if summary.get('stopped_by') else 0


def _train(config: Any, workdir: str, resume_with_changes: bool) -> dict[str, Any]:
  is_new = not os.path.exists(workdir)
  summary = layout.open_early(workdir, layout.plain(config), allow_changes=resume_with_changes)
  if summary is not None:
    print(report.finished(workdir, summary, tasks.get(config.task)), flush=True)
    return summary
  try:
    data = create_data(config)
  except BaseException:
    if is_new and os.path.isdir(workdir) and not os.listdir(workdir):
      os.rmdir(workdir)
    raise
  return loop.train(config, workdir, data, resume_with_changes=resume_with_changes)


def create_data(config: Any) -> Any:
  """Builds the input pipeline; a batch larger than the training set shrinks to what there is."""
  arguments = {
      'batch_size': config.batch_size, 'eval_batch_size': config.eval_batch_size,
      'seed': config.seed,
  }
  data = input_pipeline.create(config.data, **arguments)
  if data.note:
    print(data.note, flush=True)
  size = fitting_batch_size(config, data.num_train, jax.device_count())
  if size == config.batch_size:
    return data
  print(f'config.batch_size={config.batch_size} is more than the {data.num_train} training images:'
        f' going on with batches of {size}', flush=True)
  config.batch_size = arguments['batch_size'] = size
  return input_pipeline.create(config.data, **arguments)
