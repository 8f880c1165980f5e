"""Trains a model as a config says; `python train.py` in a checkout is the same as `fcajax train`.

    fcajax train --config quickstart --workdir runs/digits
    fcajax train --config configs/folder.py --config.data.root=DIR
    fcajax train --config imagenet_fcanet:50 --config.optimizer.learning_rate=0.05

--config takes a path or one of the names below. Every key of a config can be set as
--config.KEY=VALUE. The same command with the same --workdir continues the run.
"""
import datetime
import pathlib
import re
from collections.abc import Sequence

from absl import flags, logging

from fcajax.cli import config_flags
from fcajax.errors import UserError

config_flags.define(flags.FLAGS)
flags.DEFINE_string(
    'workdir', None, 'Where checkpoints and metrics go; runs/CONFIG-DATE-TIME by default.')
flags.DEFINE_bool('resume_with_changes', False,
                  'Continue in a work directory although its run had another config.')
flags.DEFINE_bool('distributed', False, 'Call jax.distributed.initialize() first, to train on '
                  'several hosts (pods, SLURM, MPI).')


def main(argv: Sequence[str], program: str) -> int:
  """Runs the command with the words `argv`; returns its exit status."""
  if not argv or {'-h', '--help', '-help', '--helpfull'}.intersection(argv):
    print('\n'.join([__doc__, f'configs: {", ".join(config_flags.NAMES)}',
                     flags.FLAGS.module_help(__name__)]))
    return 0 if argv else 2
  given = config_flags.parse(argv, program, flags.FLAGS)
  values = flags.FLAGS
  if not values['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # absl's default prints details of each checkpoint
  if values.distributed:
    if values.workdir is None:
      raise UserError('--distributed needs --workdir, the same on every host')
    import jax
    jax.distributed.initialize()
  from fcajax.cli import experiment  # imports JAX, which mistakes in the flags need not wait for
  try:
    return experiment.run(
        values.config, values.workdir or _default_workdir(given), config_name=given,
        overrides=values['config'].override_values,
        resume_with_changes=values.resume_with_changes)
  except KeyboardInterrupt:
    raise KeyboardInterrupt('the last checkpoint is kept') from None


def _default_workdir(given: str) -> str:
  path, _, argument = given.partition(':')
  name = '-'.join(filter(None, [pathlib.Path(path).stem, re.sub(r'[^\w]+', '-', argument)]))
  return f'runs/{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}'
