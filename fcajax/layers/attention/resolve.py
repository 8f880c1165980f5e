"""Attention by name: what a backbone builds from `attention='fca'` and its options."""
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from fcajax.errors import UserError, did_you_mean
from fcajax.layers.attention.cbam import ConvolutionalBlockAttention
from fcajax.layers.attention.eca import EfficientChannelAttention
from fcajax.layers.attention.global_context import GlobalContext
from fcajax.layers.attention.multi_spectral import MultiSpectralAttention
from fcajax.layers.attention.squeeze_excite import SqueezeExcite
from fcajax.layers.fields import field_names, takes_any_keyword

ATTENTIONS: dict[str, type[nn.Module]] = {
    'se': SqueezeExcite,
    'fca': MultiSpectralAttention,
    'eca': EfficientChannelAttention,
    'cbam': ConvolutionalBlockAttention,
    'gc': GlobalContext,
}


def resolve_attention(
    spec: Any, options: Mapping[str, Any] | None = None) -> Callable[..., nn.Module] | None:
  """Returns a factory that a backbone calls as `factory(name='attention', ...)`, or None.

  Args:
    spec: None or 'none' for no attention, a name of `ATTENTIONS`, or a module class, a partial of
      one, or any callable that returns a module.
    options: fields to set, such as `{'frequencies': 'top8'}`.

  Raises:
    UserError: an unknown name, or options that are no fields, with the names that are close.
  """
  options = dict(options or {})
  if spec is None or spec == 'none':
    if options:
      raise UserError(f'no attention was asked for, but it was given the options '
                      f'{sorted(options)}; leave them out, or name an attention')
    return None
  factory = _factory(spec)
  if not callable(factory) or isinstance(factory, nn.Module):
    raise UserError(f'attention={spec!r} must be None, a name ({", ".join(ATTENTIONS)}), or a '
                    'module class or callable that builds one')
  allowed = field_names(factory)
  for option in options:
    if option not in allowed and not takes_any_keyword(factory):
      raise UserError(
          f'attention {spec!r} has no option {option!r}: {did_you_mean(option, allowed)}')
  return functools.partial(factory, **options) if options else factory


def attention_fields(attention: Any) -> set[str]:
  """Returns the option names of an attention given by name, class or callable.

  A function that takes any keyword is assumed to know 'dtype'.

  Raises:
    UserError: an unknown name.
  """
  if attention is None or attention == 'none':
    return set()
  factory = _factory(attention)
  return field_names(factory) | ({'dtype'} if takes_any_keyword(factory) else set())


def _factory(spec):
  """The class behind a name; anything that is not a name as it is."""
  if not isinstance(spec, str):
    return spec
  if spec not in ATTENTIONS:
    raise UserError(f'unknown attention {spec!r}: {did_you_mean(spec, [*ATTENTIONS, "none"])}')
  return ATTENTIONS[spec]
