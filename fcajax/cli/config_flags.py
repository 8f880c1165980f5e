"""`--config`: finds a config by its name or path, and checks the keys that are set."""
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from fcajax import configs
from fcajax.errors import NotFoundError, UserError, did_you_mean, near_matches

_FOLDER = pathlib.Path(configs.__file__).parent
NAMES = sorted(p.stem for p in _FOLDER.glob('*.py') if p.stem not in ('__init__', 'common'))


def find(given: str) -> str:
  """Returns 'PATH[:ARGUMENT]' of a config given by path or name: 'folder', 'imagenet_dct:24S'."""
  name, colon, argument = given.partition(':')
  path = pathlib.Path(name)
  if path.suffix == '.py' and path.is_file():
    return given
  if name not in NAMES and (str(path.parent), path.suffix, path.stem in NAMES) != (
      'configs', '.py', True):
    known = [f'configs/{known}.py' for known in NAMES] if path.suffix == '.py' else NAMES
    raise NotFoundError(f"there is no config '{name}'; {did_you_mean(name, known)}")
  return f'{_FOLDER / path.stem}.py{colon}{argument}'


def load(path: str) -> Any:
  """Loads the config of 'PATH[:ARGUMENT]'; its own `UserError`s are raised as they are."""
  try:
    return config_flags.ConfigFileFlagParser('config').parse(path)
  except UserError as error:  # ml_collections writes the traceback into the message of a new error
    raise error.__context__ or error from None


def check_keys(given: str, config: Any, argv: Sequence[str]) -> None:
  """Raises UserError if a word of `argv` sets a key that `config` does not have.

  `config.model` has the fields of the network and the attention that `argv` chooses.
  """
  words = [word for word in argv if re.match(r'--?(no)?config\.', word)]
  known = list(keys(config))
  if any('config.model.' in word for word in words):
    from fcajax.configs.base import checks  # imports JAX
    known = checks.known_keys(config, _chosen_model(argv))
  for word in words:
    match = re.match(r'--?(?:no)?config\.([\w.]+)', word)
    if match and match[1] not in known:
      near = [key for key in known if key.endswith('.' + match[1])] or near_matches(match[1], known)
      raise UserError(f'{given} has no key {match[1]}; ' + (
          f'did you mean {" or ".join(f"--config.{key}" for key in near[:3])}?' if near else
          f'its keys are {", ".join(key for key in known if "." not in key)}'))


def _chosen_model(argv):
  """The values of `--config.model.KEY=VALUE`, as texts."""
  pairs = [word.lstrip('-').split('=', 1) for word in argv if '=' in word]
  # `--config.model.name VALUE` is allowed as well.
  pairs += [(word.lstrip('-'), value) for word, value in itertools.pairwise(argv)]
  prefix = 'config.model.'
  return {key.removeprefix(prefix): value for key, value in pairs if key.startswith(prefix)}


def define(values: flags.FlagValues, argv: Sequence[str] | None = None) -> None:
  """Defines `--config` in `values`; `argv` is the whole command line, None for `sys.argv`."""
  config_flags.DEFINE_config_file(
      'config', None, 'The experiment: NAME or PATH, [:ARGUMENT].', flag_values=values,
      sys_argv=argv, accept_new_attributes=True, lock_config=False)


def parse(argv: Sequence[str], program: str, values: flags.FlagValues) -> str:
  """Parses a command line with `--config` into `values`; returns the config as it was given.

  Raises:
    UserError: a config, a key or a flag that does not exist, or a value that cannot be read.
  """
  at = next((i for i, word in enumerate(argv) if re.match('--?config(=|$)', word)), None)
  if at is None or argv[at:] in (['--config'], ['-config']):
    raise UserError(f'--config is missing; it is one of {", ".join(NAMES)}, or a path')
  _, equals, value = argv[at].partition('=')
  given = value if equals else argv[at + 1]
  path = find(given)
  check_keys(given, load(path), argv)
  rest = argv[at + (1 if equals else 2):]
  try:
    unexpected = values([program, *argv[:at], f'--config={path}', *rest])[1:]
  except flags.Error as error:
    raise UserError(str(error).strip().splitlines()[-1]) from error
  if unexpected:
    raise UserError(f'unexpected argument {unexpected[0]!r}; set keys as --config.KEY=VALUE')
  values.config.lock()
  return given


def keys(config: Any, prefix: str = '') -> Iterator[str]:
  """Yields the keys of a config and of its parts: 'model', 'model.name', ..."""
  for key in config:
    yield f'{prefix}{key}'
    if hasattr(config[key], 'items'):
      yield from keys(config[key], f'{prefix}{key}.')
