"""Models by name: `create_model('fca_resnet50', num_classes=10, frequencies='top8')`."""
import fnmatch
import functools
import importlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from fcajax.models.options import (
    attention_fields,
    attention_with,
    field_defaults,
    field_names,
    near_matches,
)

_FAMILIES = (
    'fcajax.models.resnet',
    'fcajax.models.mobilenet',
    'fcajax.models.dct_resnet',
    'fcajax.models.ffc_resnet',
)


@functools.cache
def _variants():
  """Every family's `VARIANTS` in one dict; no name may be claimed twice."""
  merged = {}
  for family in _FAMILIES:
    variants = importlib.import_module(family).VARIANTS
    clash = merged.keys() & variants.keys()
    if clash:
      raise ValueError(f'{family} redefines {sorted(clash)}')
    merged.update(variants)
  return merged


def list_models(pattern='*'):
  """The names that `create_model` takes, sorted; `pattern` as in a shell: `'fca_*'`."""
  return sorted(fnmatch.filter(_variants(), pattern))


def create_model(name, num_classes=1000, **overrides):
  """Builds the network `name`, a Flax Linen module.

      model = create_model('fca_resnet50', num_classes=10, frequencies='top8')
      variables = model.init(jax.random.key(0), images, train=False)
      logits = model.apply(variables, images, train=False)

  Args:
    name: one of `list_models()`.
    num_classes: width of the logits.
    **overrides: fields of the network (`dtype`, `attention`, `zero_init_last`,
      `output_stride`, ...) or of its attention layer (`frequencies`, `reduction`, ...). Lists
      become tuples; `dtype` and `activation` may be strings ('bfloat16', 'silu'), so that a
      JSON or a config can hold them.

  Raises:
    ValueError: unknown name, override or attention, with what is close to it; no class.
  """
  variant = _variant(name)
  if not isinstance(num_classes, int | np.integer) or num_classes < 1:
    raise ValueError(f'num_classes={num_classes!r} must be a whole number of at least 1')
  defaults = field_defaults(variant)
  overrides = {key: _plain(key, value) for key, value in overrides.items()}
  network_fields, options_of_attention = _option_names(variant, overrides)
  network, options = {'num_classes': num_classes}, {}
  for key, value in overrides.items():
    if key in network_fields:
      network[key] = value
    elif key in options_of_attention:
      options[key] = value
    else:
      known = network_fields | options_of_attention
      hint = attention_with(key) if 'attention' in network_fields else None
      raise ValueError(f'{name} has no option {key!r}: {hint or near_matches(key, known)}')
  if 'attention' in overrides and 'attention_options' not in overrides:
    # The variant's own options belong to the attention that was replaced.
    base = {}
  else:
    base = overrides.get('attention_options', defaults.get('attention_options'))
  if 'attention_options' in network_fields:
    network['attention_options'] = FrozenDict({**(base or {}), **options})
  return variant(**network)


def option_names(name, **overrides):
  """What `create_model(name, **overrides)` takes besides, as a set of names."""
  return set.union(*_option_names(_variant(name), overrides))


def _variant(name):
  variants = _variants()
  if name not in variants:
    raise ValueError(f'unknown model {name!r}: {near_matches(name, variants)}')
  return variants[name]


def _option_names(variant, overrides):
  """The fields of the network, and those of the attention that it gets."""
  network = field_names(variant)
  if 'attention' not in network:
    return network, set()
  return network, attention_fields(
      overrides.get('attention', field_defaults(variant).get('attention')))


def _plain(key, value):
  """Lists to tuples and strings to what they name, so that modules stay hashable."""
  if key in ('dtype', 'param_dtype') and value is not None:
    try:
      return jnp.dtype(value)
    except TypeError:
      raise ValueError(f"{key}={value!r} is no dtype; use 'float32' or 'bfloat16'") from None
  if key == 'activation' and isinstance(value, str):
    if not callable(getattr(nn, value, None)):
      raise ValueError(f'unknown activation {value!r}; use the name of a function of flax.linen, '
                       "such as 'relu', 'silu' or 'gelu'")
    return getattr(nn, value)
  return _hashable(value)


def _hashable(value):
  if isinstance(value, Mapping):
    return FrozenDict({k: _hashable(v) for k, v in value.items()})
  if isinstance(value, list | tuple):
    return tuple(_hashable(v) for v in value)
  return value
