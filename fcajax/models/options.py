"""What a network and its attention can be told, what of it to store, and near matches of names."""
import dataclasses
import difflib
import functools
import inspect


def near_matches(name, names, limit=3):
  """A sentence naming what is close to `name`, or everything where nothing is."""
  names = sorted(names)
  close = difflib.get_close_matches(str(name), names, n=limit, cutoff=0.5)
  if close:
    return f'did you mean {" or ".join(repr(c) for c in close)}?'
  return f'it is one of {", ".join(names)}'


def field_names(factory):
  """The fields of a module class, a partial of one, or the keywords of a function.

  A function that takes any keyword is taken to know 'dtype'.
  """
  while isinstance(factory, functools.partial):
    factory = factory.func
  if dataclasses.is_dataclass(factory):
    names = {field.name for field in dataclasses.fields(factory) if field.init}
  elif not callable(factory):
    names = set()
  else:
    parameters = inspect.signature(factory).parameters.values()
    names = {'dtype' if p.kind is p.VAR_KEYWORD else p.name for p in parameters}
  return names - {'parent', 'name'}


def field_defaults(factory):
  """The value each field takes when `factory` is called without arguments."""
  bound = {}
  while isinstance(factory, functools.partial):
    bound = {**factory.keywords, **bound}
    factory = factory.func
  defaults = {field.name: field.default for field in dataclasses.fields(factory)
              if field.default is not dataclasses.MISSING}
  return {**defaults, **bound}


def attention_fields(attention):
  """The option names of an attention given by name, class or partial."""
  if attention is None or attention == 'none':
    return set()
  if isinstance(attention, str):
    from fcajax.layers.attention import ATTENTIONS
    if attention not in ATTENTIONS:
      raise ValueError(
          f'unknown attention {attention!r}: {near_matches(attention, [*ATTENTIONS, "none"])}')
    attention = ATTENTIONS[attention]
  return field_names(attention)


def attention_with(option):
  """A sentence naming the attentions that have `option`, or None."""
  from fcajax.layers.attention import ATTENTIONS
  names = [name for name, factory in ATTENTIONS.items() if option in field_names(factory)]
  return f'it belongs to attention={" or ".join(map(repr, names))}' if names else None


def portable(overrides):
  """`overrides` of a network with subsets and frequencies that are files written out in full."""
  from fcajax.ops.coefficients import portable_spec
  from fcajax.ops.dct import GRID, portable_frequencies
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
