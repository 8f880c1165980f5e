"""Options of networks and their attention: hints for misplaced ones, and their stored form."""
from collections.abc import Mapping
from typing import Any

from fcajax.layers.attention import ATTENTIONS
from fcajax.layers.fields import field_names
from fcajax.ops.dct import GRID
from fcajax.selection.coefficients import portable_spec
from fcajax.selection.frequencies import portable_frequencies


def attention_with(option: str) -> str | None:
  """Returns a sentence that names the attentions which have `option`, or None."""
  names = [name for name, factory in ATTENTIONS.items() if option in field_names(factory)]
  return f'it belongs to attention={" or ".join(map(repr, names))}' if names else None


def portable(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces the paths of subsets and frequencies in a network's options by their content.

  A network is stored with the result, so that it can be built where the files do not exist.
  """
  stored = dict(overrides)
  if 'frequencies' in stored:
    stored['frequencies'] = portable_frequencies(
        stored['frequencies'], stored.get('grid') or GRID)
  if 'coefficients' in stored:
    given = stored['coefficients']  # 192 is read as a number from the command line
    stored['coefficients'] = portable_spec(str(given) if isinstance(given, int) else given)
  if stored.get('attention_options'):
    stored['attention_options'] = portable(stored['attention_options'])
  return stored
