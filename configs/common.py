"""What every config starts from: all keys with their defaults, and how arguments are read.

A config is a file with `get_config(arg='')` that returns a `ConfigDict`. The text after the
colon, as in `--config configs/imagenet_fcanet.py:101,smoke`, is `arg`. configs/base/settings.py and
input_pipeline/settings.py say what each key means; other tasks add settings of their own.
"""
import dataclasses
from collections.abc import Sequence
from typing import Any, get_type_hints

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fcajax.configs.base.settings import (
  CheckpointSettings,
  ModelSettings,
  OptimizerSettings,
  RunSettings,
)
from fcajax.errors import UserError, did_you_mean
from fcajax.input_pipeline.settings import DataSettings


def get_config() -> ConfigDict:
  """Returns the base config, which trains a ResNet on an image folder once `data.root` is set."""
  config = settings_tree(RunSettings)
  config.model = settings_tree(ModelSettings)
  config.data = settings_tree(DataSettings)
  config.optimizer = settings_tree(OptimizerSettings)
  config.checkpoint = settings_tree(CheckpointSettings)
  return config


def settings_tree(settings: type, **values: Any) -> ConfigDict:
  """Returns the keys and defaults of a dataclass of settings as a part of a config.

  Args:
    settings: the dataclass; a field of type `Any` takes a value of any type.
    **values: in place of defaults.
  Raises:
    UserError: a value of no field.
  """
  tree, hints = ConfigDict(), get_type_hints(settings)
  for field in dataclasses.fields(settings):
    if hints[field.name] is Any:
      tree[field.name] = placeholder(object)
    default = field.default
    tree[field.name] = float(default) if hints[field.name] is float else default
  for name, value in values.items():
    if name not in tree:
      raise UserError(f'{settings.__name__} has no field {name!r}; {did_you_mean(name, tree)}')
    tree[name] = value
  return tree


def parse(arg: str | None, variants: Sequence[str] = ()) -> tuple[str | None, bool]:
  """Reads a config's argument: at most one of `variants`, and 'smoke', separated by commas.

  Args:
    arg: the text after the colon.
    variants: allowed names; the first is the default.

  Returns:
    (variant or None, smoke).

  Raises:
    UserError: any other word, naming what is near it.
  """
  variant, smoke = (variants[0] if variants else None), False
  for word in filter(None, (part.strip() for part in (arg or '').split(','))):
    if word == 'smoke':
      smoke = True
    elif word in variants:
      variant = word
    else:
      raise UserError(
          f'unknown config argument {word!r}; {did_you_mean(word, [*variants, "smoke"])}')
  return variant, smoke


def shrink(config: ConfigDict, *, steps: int = 4, batch_size: int = 8,
           image_size: int = 64) -> ConfigDict:
  """Makes any config small enough for a few seconds on a CPU; returns it."""
  config.num_steps = steps
  config.batch_size = config.eval_batch_size = batch_size
  config.data.image_size = image_size
  config.data.resize_size = 0
  config.log_every_steps = 1
  config.optimizer.warmup_epochs = 0.0
  config.dtype = 'float32'
  return config
