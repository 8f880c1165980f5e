"""What must hold before a frequency search starts: held-out images, map sizes, channels."""
import re
from typing import Any

import jax
from flax import linen as nn

from fcajax.errors import UserError
from fcajax.layers.attention import basis_collection
from fcajax.ops.dct import check_split, multispectral_factors
from fcajax.search.settings import SearchSettings
from fcajax.train.plan import check_enough_data


def check_frequencies(
    model: nn.Module, settings: SearchSettings, sample: jax.ShapeDtypeStruct) -> None:
  """Checks that every attention layer can hold all frequencies that the search will try.

  Args:
    model: a network with multi-spectral attention.
    settings: names the grid and the values of k.
    sample: an input of the model, `[1, H, W, C]`.

  Raises:
    UserError: the feature map of a layer is too small for the grid, or its channels do not split
      into k frequencies; names the layer.
  """
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


def check_splits(config: Any, data: Any) -> None:
  """Checks that the search trains and scores on two disjoint parts of the training split.

  The test set must not pick the frequencies (the original picked them on the validation set that
  it then reports), so `config.data.eval_split` has to be a part of the training split.

  Args:
    config: of the run, with `data`, `search` and `batch_size`.
    data: as `fcajax.input_pipeline.create` gives it.

  Raises:
    UserError: the splits overlap, come from another split, or hold too few images.
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
  check_enough_data(config, data.num_train)
  least = 10 * data.num_classes
  if data.num_evaluation < least:
    raise UserError(
        f'{data.num_evaluation} held-out images of {data.num_classes} classes cannot tell '
        f'{config.search.grid[0] * config.search.grid[1]} frequencies apart; hold out at least '
        f'{least} (10 a class) with data.eval_split or data.validation_fraction, or use more data')


def _parse_split(text: str) -> tuple[str, str | None, int, int | float]:
  """Parses a TFDS split: 'train[10%:90%]' -> ('train', '%', 10, 90).

  The unit is '' for numbers of images, and None for a range in any other form.
  """
  match = re.fullmatch(r'(\w+)(?:\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\])?', text)
  if not match:
    return text.split('[')[0], None, 0, 0
  name, low, low_unit, high, high_unit = match.groups()
  if low_unit and high_unit and low_unit != high_unit:
    return name, None, 0, 0
  unit = low_unit or high_unit or ''
  return name, unit, int(low or 0), int(high) if high else float('inf')


def _overlap(left, right) -> bool:
  """Returns True if two parsed splits share images; False if they cannot be compared."""
  whole = [part for part in (left, right) if part[2:] == (0, float('inf'))]
  if left[1] is None or right[1] is None or not (whole or left[1] == right[1]):
    return False
  return max(left[2], right[2]) < min(left[3], right[3])
