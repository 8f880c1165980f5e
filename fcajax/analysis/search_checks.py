"""What has to hold before a frequency search starts: splits, sizes, channels."""
import re

import jax
import jax.numpy as jnp

from fcajax.layers.attention import basis_collection
from fcajax.models.options import attention_fields
from fcajax.models.registry import create_model
from fcajax.ops.dct import GRID, check_split, multispectral_factors
from fcajax.train import build
from fcajax.train.errors import UserError


def searched_model(config, settings, num_classes):
  """The network whose frequencies are searched; the filters come from outside at every call."""
  overrides = build.model_overrides(config)
  # One frequency always fits, so that the model can be initialised whatever its channels.
  overrides |= {'frequencies': ((0, 0),)}
  if tuple(settings.grid) != GRID:
    overrides['grid'] = tuple(settings.grid)
  model = create_model(config.model.name, num_classes=num_classes, **overrides)
  return model.clone(dtype=jnp.dtype(config.dtype)) if config.dtype != 'float32' else model


def base_config(config):
  """The config of the network without attention, for `fcajax.train.loop`."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for key in attention_fields('fca'):
      if key in config.model:
        config.model[key] = None
    config.model.attention = 'none'
    del config.search
  return config


def sample_input(data, dtype):
  from fcajax.preprocess import device_transform
  images = jax.ShapeDtypeStruct((1, *data.preprocessing.shape, 3), jnp.uint8)
  return jax.eval_shape(device_transform(data.preprocessing, dtype), images)


def check_frequencies(model, settings, sample):
  """Raises UserError where a layer's size or channels cannot hold what the search will try."""
  filters = basis_collection(model, [(0, 0)], sample, train=False)
  everything = [(u, v) for u in range(settings.grid[0]) for v in range(settings.grid[1])]
  for path, basis in jax.tree_util.tree_leaves_with_path(filters):
    layer = '/'.join(part.key for part in path[:-1])
    height, width, channels = basis.shape
    try:
      multispectral_factors(height, width, everything, settings.grid)
    except ValueError as error:
      raise UserError(f'the search cannot tell all frequencies apart in {layer}: {error}. Larger '
                      'images or a smaller config.search.grid help too') from error
    for k in settings.top_k:
      try:
        check_split(channels, k)
      except ValueError as error:
        raise UserError(f'config.search.top_k={settings.top_k} in {layer}: {error}') from error


def check_splits(config, data):
  """Raises UserError unless the search can train and score on parts of the training split.

  The test set must not pick the frequencies (the original picked them on the validation set that
  it then reports), so `config.data.eval_split` has to be a part of the training split.
  """
  settings = config.data
  advice = ('the search scores on images held out of the training split: set for example '
            "data.train_split='train[:80%]', data.eval_split='train[80%:]'")
  if settings.source == 'tfds':
    train, held = (_parse_split(settings[key]) for key in ('train_split', 'eval_split'))
    if train[0] != held[0]:
      raise UserError(f'data.eval_split={settings.eval_split!r} is no part of '
                      f'data.train_split={settings.train_split!r}; {advice}')
    if _overlap(train, held):
      raise UserError(f'data.eval_split={settings.eval_split!r} overlaps '
                      f'data.train_split={settings.train_split!r}; {advice}')
  elif data.train_folder:
    raise UserError(f"data.root='{settings.root}' has a test folder of its own, on which a "
                    f"search must not be scored; set data.root='{data.train_folder}', of which "
                    'data.validation_fraction is then held out')
  if data.num_train < config.batch_size:
    raise UserError(f'config.batch_size={config.batch_size} is more than the {data.num_train} '
                    'training images; use a smaller batch, or more data')
  least = 10 * data.num_classes
  if data.num_evaluation < least:
    raise UserError(
        f'{data.num_evaluation} held-out images of {data.num_classes} classes cannot tell '
        f'{config.search.grid[0] * config.search.grid[1]} frequencies apart; hold out at least '
        f'{least} (10 a class) with data.eval_split or data.validation_fraction, or use more data')


def _parse_split(text):
  """'train[10%:90%]' -> ('train', '%', 10, 90); without a range or a form like it, no numbers."""
  match = re.fullmatch(r'(\w+)(?:\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\])?', text)
  if not match:
    return text.split('[')[0], None, 0, 0
  name, low, low_unit, high, high_unit = match.groups()
  if low_unit and high_unit and low_unit != high_unit:
    return name, None, 0, 0
  unit = low_unit or high_unit or ''
  return name, unit, int(low or 0), int(high) if high else float('inf')


def _overlap(left, right):
  """Whether two parsed splits share images; False where their forms cannot be compared."""
  whole = [part for part in (left, right) if part[2:] == (0, float('inf'))]
  if left[1] is None or right[1] is None or not (whole or left[1] == right[1]):
    return False
  return max(left[2], right[2]) < min(left[3], right[3])
