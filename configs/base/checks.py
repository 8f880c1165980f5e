"""Checks of a config before any work: keys, and values by the types of the fields they fill."""
import collections.abc
import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict

from fcajax.configs.base.settings import CheckpointSettings, OptimizerSettings, RunSettings
from fcajax.errors import UserError, did_you_mean
from fcajax.input_pipeline import registry as sources
from fcajax.input_pipeline.settings import DataSettings
from fcajax.layers.attention import ATTENTIONS
from fcajax.layers.fields import field_defaults
from fcajax.models import registry
from fcajax.models.options import attention_with

# Set by the run: the classes by the data, the other two by config.dtype and the devices.
_OF_THE_RUN = {'num_classes', 'dtype', 'axis_name'}
# Values by key; a ConfigDict is no Mapping.
Values = Mapping[str, Any] | ConfigDict

_PARTS = {'optimizer': OptimizerSettings, 'checkpoint': CheckpointSettings}
_NAMES = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text',
          type(None): 'None'}


def known_keys(config: ConfigDict, model: Mapping[str, Any] | None = None) -> list[str]:
  """Returns every key that can be set, such as 'optimizer.learning_rate' and 'model.width'.

  Args:
    config: a config.
    model: values of `config.model` that replace the config's: {'name': 'fca_resnet50'}.
  Raises:
    UserError: unknown network or attention.
  """
  keys = []
  for name, value in config.items():
    inner = value if isinstance(value, ConfigDict) else ()
    keys += [name, *(f'{name}.{key}' for key in inner)]
  chosen = {**config.model.to_dict(), **(model or {})}
  return keys + [key for name in model_options(chosen)
                 if (key := f'model.{name}') not in keys]


def check_config(config: ConfigDict) -> None:
  """Checks the types of all values, and that every key is known; opens no data.

  Raises:
    UserError: names the key, its value and what it takes.
  """
  check_values(config, RunSettings, 'config')
  for name, settings in _PARTS.items():
    check_values(config[name], settings, f'config.{name}')
  check_model(config.model)
  source = sources.find(config.data.get('source', DataSettings.source))
  sources.settings_class(source).from_config(config.data)


def check_values(values: Values, settings: type, section: str) -> None:
  """Checks values against the fields of a dataclass.

  Args:
    values: may lack fields, and may have others.
    settings: the dataclass.
    section: name of the values in messages, such as 'config.optimizer'.
  Raises:
    UserError: a value of another type.
  """
  for name, hint in get_type_hints(settings).items():
    if name in values:
      _check(f'{section}.{name}', values[name], hint)


def model_options(model: Values) -> list[str]:
  """Returns the names of the fields of the network and the attention that the values choose.

  Args:
    model: `config.model`.
  Raises:
    UserError: unknown network or attention.
  """
  _check('config.model.name', model['name'], str)
  return sorted(registry.option_names(model['name'], **_chosen(model)) - _OF_THE_RUN)


def _chosen(model):
  return {key: value for key, value in model.items() if key != 'name' and value is not None}


def check_model(model: Values) -> None:
  """Checks `config.model`: every key is a field of the network or of its attention.

  Raises:
    UserError: an unknown network or key, or a value of another type than its field.
  """
  known, types_ = model_options(model), _field_types(model)
  for key, value in _chosen(model).items():
    if key not in known:
      raise UserError(f'config.model.{key}: {model["name"]} has no such field; '
                      f'{attention_with(key) or did_you_mean(key, known)}')
    # 192 is read as a number from the command line.
    value = str(value) if key == 'coefficients' and isinstance(value, int) else value
    _check(f'config.model.{key}', value, types_.get(key, Any))


def _field_types(model):
  """The types of the fields of the network and of its attention, by name."""
  variant = registry._variant(model['name'])
  attention = model.get('attention') or field_defaults(variant).get('attention')
  if isinstance(attention, str):
    attention = ATTENTIONS.get(attention)
  return {**_own_types(attention), **_own_types(variant)}


def _own_types(factory):
  while isinstance(factory, functools.partial):
    factory = factory.func
  if not dataclasses.is_dataclass(factory):
    return {}
  return {field.name: field.type for field in dataclasses.fields(factory)}


def _check(key, value, hint):
  if not accepts(value, hint):
    raise UserError(f'{key}={value!r} must be {_describe(hint)}')


def accepts(value: Any, hint: Any) -> bool:
  """Returns False if a value of a config cannot be of type `hint`; lists count as tuples.

  Types that a config cannot hold, such as arrays and functions, accept everything.
  """
  origin, parts = get_origin(hint), get_args(hint)
  if origin in (Union, types.UnionType):
    return any(accepts(value, part) for part in parts)
  if origin is Literal:
    return value in parts
  kind = origin or hint
  if kind in (bool, str, type(None)):
    return isinstance(value, kind)
  if kind in (int, float):
    return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
  if kind in (tuple, list, collections.abc.Sequence):
    if isinstance(value, str) or not isinstance(value, list | tuple):
      return False
    if kind is tuple and parts and parts[-1] is not Ellipsis:
      return len(parts) == len(value) and all(map(accepts, value, parts))
    return all(accepts(item, parts[0]) for item in value) if parts else True
  if kind in (dict, collections.abc.Mapping):
    return isinstance(value, Mapping) or hasattr(value, 'to_dict')
  return True


def _describe(hint):
  """Names a type as a user would."""
  origin, parts = get_origin(hint), get_args(hint)
  if origin in (Union, types.UnionType):
    return ' or '.join(dict.fromkeys(map(_describe, parts)))
  if origin is Literal:
    return ' or '.join(map(repr, parts))
  kind = origin or hint
  if kind in (tuple, list, collections.abc.Sequence):
    inner = [part for part in parts if part is not Ellipsis]
    return f'a tuple, each item {_describe(inner[0])}' if inner else 'a tuple'
  if kind in (dict, collections.abc.Mapping):
    return "a dictionary such as {'reduction': 8}"
  return _NAMES.get(kind, getattr(hint, '__name__', str(hint)))
