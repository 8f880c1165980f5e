"""Models by name: `create_model('fca_resnet50', num_classes=10, frequencies='top8')`."""
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from fcajax.errors import UserError, did_you_mean
from fcajax.layers.attention import attention_fields
from fcajax.layers.fields import field_defaults, field_names
from fcajax.models.backbones import dct_resnet, ffc_resnet, mobilenet, resnet
from fcajax.models.backbones.stages import FeatureInfo
from fcajax.models.detection import two_stage
from fcajax.models.options import attention_with
from fcajax.models.pose import simple_baseline


def merge_variants(
    *families: Mapping[str, Callable[..., nn.Module]]) -> dict[str, Callable[..., nn.Module]]:
  """Joins the variants of several families; raises ValueError if a name is taken twice."""
  merged = {}
  for variants in families:
    clash = merged.keys() & variants.keys()
    if clash:
      raise ValueError(f'two families of models define {sorted(clash)}')
    merged.update(variants)
  return merged


# Networks that classify images; the networks of other tasks are built on them.
BACKBONES = merge_variants(
    resnet.VARIANTS, mobilenet.VARIANTS, dct_resnet.VARIANTS, ffc_resnet.VARIANTS)
VARIANTS = merge_variants(BACKBONES, simple_baseline.VARIANTS, two_stage.VARIANTS)


def list_models(pattern: str = '*') -> list[str]:
  """Returns the names that `create_model` takes, sorted; `pattern` as in a shell: `'fca_*'`."""
  return sorted(fnmatch.filter(VARIANTS, pattern))


def create_model(name: str, num_classes: Any = 1000, **overrides: Any) -> nn.Module:
  """Builds the network `name`, a Flax Linen module.

      model = create_model('fca_resnet50', num_classes=10, frequencies='top8')
      variables = model.init(jax.random.key(0), images, train=False)
      logits = model.apply(variables, images, train=False)

      backbone = create_model('fca_resnet50', features_only=(2, 3, 4))
      stage2, stage3, stage4 = backbone.apply(variables, images, train=False)

  Args:
    name: one of `list_models()`.
    num_classes: number of logits, an integer; 0 leaves the head out and returns pooled features.
    **overrides: fields of the network (`dtype`, `attention`, `zero_init_last`, `output_stride`,
      `features_only`, ...) or of its attention layer (`frequencies`, `reduction`, ...). Lists
      become tuples; `dtype` and `activation` may be strings ('bfloat16', 'silu'), so that JSON
      or a config can hold them. A network for keypoints takes `backbone`, the name of another
      network, and `backbone_options`, the overrides of that one.

  Raises:
    UserError: an unknown name, override or attention, with what is close to it; a number of
      classes that is not a whole number of at least 0.
  """
  variant = _variant(name)
  if (not isinstance(num_classes, int | np.integer) or isinstance(num_classes, bool)
      or num_classes < 0):
    raise UserError(f'num_classes={num_classes!r} must be a whole number of at least 1, or 0 for '
                    'pooled features in place of logits')
  defaults = field_defaults(variant)
  overrides = {key: _plain(key, value) for key, value in overrides.items()}
  network_fields, options_of_attention = _option_names(variant, overrides)
  network, options = {}, {}
  if 'num_classes' in network_fields:
    network['num_classes'] = int(num_classes)
  for key, value in overrides.items():
    if key in network_fields:
      network[key] = value
    elif key in options_of_attention:
      options[key] = value
    else:
      known = network_fields | options_of_attention
      hint = attention_with(key) if 'attention' in network_fields else None
      raise UserError(f'{name} has no option {key!r}: {hint or did_you_mean(key, known)}')
  if 'attention' in overrides and 'attention_options' not in overrides:
    # The variant's own options belong to the attention that was replaced.
    base = {}
  else:
    base = overrides.get('attention_options', defaults.get('attention_options'))
  if 'attention_options' in network_fields:
    network['attention_options'] = FrozenDict({**(base or {}), **options})
  if 'backbone' in network_fields:
    network['backbone'] = _backbone({**defaults, **network})
  return variant(**network)


def _backbone(fields):
  """Builds the network below a task's head, from its name and what it shares with the head."""
  if not isinstance(fields['backbone'], str):
    return fields['backbone']
  shared = {'dtype': fields['dtype']}
  if not isinstance(fields['norm'], str):
    shared |= {'norm': fields['norm'], 'axis_name': fields['axis_name']}
  elif fields['norm'] == 'sync':
    shared['axis_name'] = fields['axis_name']
  options = {'num_classes': 0, **shared, **(fields['backbone_options'] or {})}
  return create_model(fields['backbone'], **options)


def feature_info(model: str | nn.Module, **overrides: Any) -> tuple[FeatureInfo, ...]:
  """Returns name, channels and stride (in image pixels) of each feature map of a network.

      [info.channels for info in feature_info('resnet50', features_only=(2, 3, 4))]

  Args:
    model: a name of `list_models()`, or a network.
    **overrides: of `create_model`, for a name.

  Raises:
    UserError: as `create_model`; a network without stages.
  """
  if isinstance(model, str):
    model = create_model(model, **overrides)
  if not hasattr(model, 'feature_info'):
    raise UserError(f'{type(model).__name__} has no method feature_info, which names its feature '
                    'maps; use a network of create_model')
  return model.feature_info()


def option_names(name: str, **overrides: Any) -> set[str]:
  """Returns the names of the options that `create_model(name, **overrides)` takes."""
  return set.union(*_option_names(_variant(name), overrides))


def _variant(name):
  if name not in VARIANTS:
    raise UserError(f'unknown model {name!r}: {did_you_mean(name, VARIANTS)}')
  return VARIANTS[name]


def _option_names(variant, overrides):
  """The fields of the network, and those of the attention that it gets."""
  network = field_names(variant)
  if 'attention' not in network:
    return network, set()
  return network, attention_fields(
      overrides.get('attention', field_defaults(variant).get('attention')))


def _plain(key, value):
  """Lists as tuples, and strings as what they name, so that modules stay hashable."""
  if key in ('dtype', 'param_dtype') and value is not None:
    try:
      return jnp.dtype(value)
    except TypeError:
      raise UserError(f"{key}={value!r} is no dtype; use 'float32' or 'bfloat16'") from None
  if key == 'activation' and isinstance(value, str):
    if not callable(getattr(nn, value, None)):
      raise UserError(f'unknown activation {value!r}; use the name of a function of flax.linen, '
                      "such as 'relu', 'silu' or 'gelu'")
    return getattr(nn, value)
  return _hashable(value)


def _hashable(value):
  if isinstance(value, Mapping):
    return FrozenDict({k: _hashable(v) for k, v in value.items()})
  if isinstance(value, list | tuple):
    return tuple(_hashable(v) for v in value)
  return value
