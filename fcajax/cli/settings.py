"""`--set KEY=VALUE`: fields of a network on the command line."""
import argparse
import ast
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fcajax.errors import UserError
from fcajax.layers.attention import resolve_attention
from fcajax.models.registry import create_model

# What is an argument of its own.
_RESERVED = {'num_classes': '--num-classes', 'name': 'MODEL'}
_WORDS = {'true': True, 'false': False, 'none': None}

# What Python and JAX raise inside a network for a value of the wrong type or size.
_WRONG_VALUE = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError)


def add_settings(parser: argparse.ArgumentParser) -> None:
  """Adds --set."""
  parser.add_argument(
      '--set', action='append', default=[], metavar='KEY=VALUE',
      help="a field of the network, such as frequencies='top8'; may be repeated")


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
  """Parses `['frequencies=top8', 'width=32']` to `{'frequencies': 'top8', 'width': 32}`.

  Raises:
    UserError: no KEY=VALUE, or a key that has an argument of its own.
  """
  values = {}
  for setting in settings:
    key, equals, text = setting.partition('=')
    if not equals or not key.isidentifier():
      raise UserError(f"--set {setting} must be KEY=VALUE, for example --set frequencies='top8'")
    if key in _RESERVED:
      raise UserError(f'--set {setting}: {key} is no field to set; give it as {_RESERVED[key]}')
    values[key] = text if (key, text) == ('stem', 'none') else parse_value(text)
  return values


def parse_value(text: str) -> Any:
  """Returns the Python value that a word of the command line spells, else the text itself.

  'true', 'false' and 'none' are read in any case, as shells and JSON write them: as text they
  would all count as true. A value that JSON cannot hold stays text, because it could not be stored.
  """
  if text.strip().lower() in _WORDS:
    return _WORDS[text.strip().lower()]
  try:
    value = ast.literal_eval(text)
    json.dumps(value)
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
    return text
  return value


@contextlib.contextmanager
def explain_settings(name: str, settings: Mapping[str, Any]) -> Iterator[None]:
  """Explains errors of a body that builds and traces the network `name` with `settings`.

  Raises:
    UserError: in place of the error that a value of the wrong type raises somewhere inside the
      network; it names the settings and their defaults. Without settings nothing is replaced.
  """
  try:
    yield
  except UserError:
    raise
  except _WRONG_VALUE as error:
    if not settings:
      raise
    given = ' '.join(f'--set {key}={value!r}' for key, value in settings.items())
    known = ', '.join(f'{key}={value!r}' for key, value in _defaults(name, settings))
    reason = (str(error).strip().splitlines() or [''])[0][:160]
    raise UserError(f'{name} cannot be built with {given}; use values like the default '
                    f'{known or "ones"} ({type(error).__name__}: {reason})') from error


def _defaults(name: str, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
  """Yields (key, value) of the fields that `create_model(name)` or its attention has."""
  model = create_model(name)
  factory = resolve_attention(
      getattr(model, 'attention', None), getattr(model, 'attention_options', None))
  for key in keys:
    for module in (model, factory() if factory else None):
      if hasattr(module, key):
        value = getattr(module, key)
        yield key, getattr(value, '__name__', value)
        break
