"""Introspection of module fields: which names a factory takes, and their defaults."""
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


def field_names(factory: Any) -> set[str]:
  """Returns the names that a module class, a partial of one, or a function can be given.

  `name` and `parent`, which Flax sets, are left out. For a function that takes any keyword see
  `takes_any_keyword`. Anything that cannot be called has none.
  """
  base = _unwrap(factory)
  if dataclasses.is_dataclass(base):
    names = {field.name for field in dataclasses.fields(base) if field.init}
  elif callable(base):
    parameters = inspect.signature(base).parameters.values()
    names = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
  else:
    names = set()
  return names - {'parent', 'name'}


def takes_any_keyword(factory: Any) -> bool:
  """Returns True if the factory is a function with a `**kwargs` parameter."""
  base = _unwrap(factory)
  if dataclasses.is_dataclass(base) or not callable(base):
    return False
  return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(base).parameters.values())


def field_defaults(factory: Callable[..., Any]) -> dict[str, Any]:
  """Returns the value of each field when the module class or partial is called without arguments.

  Fields without a default are left out.
  """
  bound = {}
  base = factory
  while isinstance(base, functools.partial):
    bound = {**base.keywords, **bound}
    base = base.func
  defaults = {field.name: field.default for field in dataclasses.fields(base)
              if field.default is not dataclasses.MISSING}
  return {**defaults, **bound}


def _unwrap(factory):
  """The class or function behind partials."""
  while isinstance(factory, functools.partial):
    factory = factory.func
  return factory
