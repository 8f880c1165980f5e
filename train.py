"""Trains a model as a config says.

    python train.py --config configs/quickstart.py --workdir runs/digits
    python train.py --config configs/folder.py --config.data.root=DIR
    python train.py --config configs/imagenet_fcanet.py:50 --config.optimizer.learning_rate=0.05

Every key of a config can be set as --config.KEY=VALUE. The same command with the same --workdir
goes on where it stopped. Without --workdir the run goes to runs/CONFIG-DATE-TIME.
"""
import datetime
import difflib
import os
import pathlib
import re
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'The experiment: configs/NAME.py or configs/NAME.py:ARGUMENT.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Where checkpoints and figures go; runs/CONFIG-DATE-TIME by default.')
_RESUME_WITH_CHANGES = flags.DEFINE_bool(
    'resume_with_changes', False,
    'Go on in a work directory although its run had another config.')
_DISTRIBUTED = flags.DEFINE_bool(
    'distributed', False,
    'Call jax.distributed.initialize() first, to train on several hosts (pods, SLURM, MPI).')
_TRACEBACK = flags.DEFINE_bool(
    'traceback', False, 'Show where in the code an error was raised.')

# Shells and schedulers report a process that ended through a signal like this.
_SIGNAL_EXIT = 128


def _fail(message):
  print(f'train.py: {message}', file=sys.stderr)
  sys.exit(2)


def _known_keys(config, prefix=''):
  keys = []
  for key in config:
    value = config[key]
    keys.append(f'{prefix}{key}')
    if hasattr(value, 'items'):
      keys += _known_keys(value, f'{prefix}{key}.')
  return keys


def _config_argument(argv):
  """The value of --config, or None."""
  for index, argument in enumerate(argv):
    name, equals, value = argument.partition('=')
    if name in ('--config', '-config'):
      return value if equals else (argv[index + 1] if index + 1 < len(argv) else None)
  return None


def _check_config_flags(argv):
  """Fails on a config file or a config key that does not exist, naming what is near."""
  given = _config_argument(argv)
  if given is None:
    _fail('--config is missing; configs here: ' + ', '.join(_configs()))
  path = given.partition(':')[0]
  if not os.path.isfile(path):
    near = difflib.get_close_matches(path, _configs(), n=3, cutoff=0.6)
    _fail(f'there is no config file {path}; ' + (
        f'did you mean {", ".join(near)}?' if near else f'configs here: {", ".join(_configs())}'))
  config = config_flags.config_flags.ConfigFileFlagParser('config').parse(given)
  known = _known_keys(config)
  for argument in argv:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', argument)
    if match and match[1] not in known:
      key = match[1]
      near = difflib.get_close_matches(key, known, n=3, cutoff=0.75)
      near += [name for name in known if name.endswith('.' + key) and name not in near]
      _fail(f'{given} has no key {key}; ' + (
          f'did you mean {", ".join(f"--config.{name}" for name in near[:3])}?' if near else
          f'its keys are {", ".join(name for name in known if "." not in name)}'))


def _parse_flags(argv):
  """Parses the command line; a mistake in it is one message and exit status 2."""
  if len(argv) == 1:
    print(__doc__.strip() + '\n\nconfigs here: ' + ', '.join(_configs()) +
          '\nall flags: python train.py --help')
    sys.exit(2)
  try:
    if not any(argument.lstrip('-').startswith('help') for argument in argv):
      _check_config_flags(argv)
    remaining = flags.FLAGS(argv)
    if len(remaining) > 1:
      _fail(f'unexpected argument {remaining[1]!r}; set keys as --config.KEY=VALUE')
  except (ValueError, TypeError, AttributeError, KeyError, OSError, flags.Error) as error:
    if '--traceback' in argv:
      raise
    # ml_collections puts the whole traceback of a config's error into the message.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    _fail(re.sub(r'^\w*(?:Error|Exception): ', '', lines[-1]))
  return remaining


def _configs():
  folder = pathlib.Path(__file__).parent / 'configs'
  return sorted(
      os.path.relpath(path) for path in folder.glob('*.py')
      if path.stem not in ('__init__', 'common'))


def _config_path():
  return flags.FLAGS['config'].config_filename


def _default_workdir():
  path, _, argument = _config_path().partition(':')
  name = '-'.join(filter(None, [pathlib.Path(path).stem, re.sub(r'[^\w]+', '-', argument)]))
  return f'runs/{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}'


def _create_data(config):
  """Builds the input pipeline; a batch larger than the training set shrinks to what there is."""
  import jax

  import input_pipeline
  arguments = {
      'batch_size': config.batch_size, 'eval_batch_size': config.eval_batch_size,
      'seed': config.seed,
  }
  data = input_pipeline.create(config.data, **arguments)
  if data.note:
    print(data.note, flush=True)
  parts = jax.device_count() * config.optimizer.accumulate_steps
  largest = data.num_train // parts * parts
  if data.num_train >= config.batch_size or largest == 0:
    return data
  print(f'config.batch_size={config.batch_size} is more than the {data.num_train} training images:'
        f' going on with batches of {largest}', flush=True)
  config.batch_size = arguments['batch_size'] = largest
  return input_pipeline.create(config.data, **arguments)


def _run(workdir):
  """Runs the task of the config; returns its summary."""
  from fcajax.train import build, loop, next_steps, report
  from fcajax.train import workdir as directories
  config = _CONFIG.value
  build.check_config(config)
  if config.task == 'frequency_search':
    from fcajax.analysis import frequency_search
    return frequency_search.run(config, workdir, _create_data(config))
  is_new = not os.path.exists(workdir)
  changes = _RESUME_WITH_CHANGES.value
  summary = directories.open_early(workdir, directories.plain(config), allow_changes=changes)
  if summary is not None:
    print(report.finished(workdir, summary), flush=True)
  else:
    try:
      data = _create_data(config)
    except Exception:
      if is_new and os.path.isdir(workdir) and not os.listdir(workdir):
        os.rmdir(workdir)
      raise
    summary = loop.train(config, workdir, data, resume_with_changes=changes)
  if summary['finished']:
    print(next_steps.describe(
        workdir, config, config_path=_config_path(),
        overrides=flags.FLAGS['config'].override_values))
  return summary


def main(argv):
  del argv
  if not any(argument.lstrip('-').startswith('verbosity') for argument in sys.argv):
    # absl's own default prints every detail of each checkpoint.
    logging.set_verbosity(logging.WARNING)
  from fcajax.train.errors import TrainingDiverged
  from input_pipeline import CorruptDataError
  if _DISTRIBUTED.value:
    if _WORKDIR.value is None:
      _fail('--distributed needs --workdir, the same on every host')
    import jax
    jax.distributed.initialize()
  workdir = _WORKDIR.value or _default_workdir()
  try:
    summary = _run(workdir)
  except (ValueError, OSError, TrainingDiverged, CorruptDataError) as error:
    if _TRACEBACK.value:
      raise
    _fail(error)
  except KeyboardInterrupt:
    print('train.py: interrupted; the last checkpoint is kept', file=sys.stderr)
    sys.exit(_SIGNAL_EXIT + signal.SIGINT)
  sys.exit(_SIGNAL_EXIT + summary['stopped_by'] if summary.get('stopped_by') else 0)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse_flags)
