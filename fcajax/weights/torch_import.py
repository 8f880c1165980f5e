"""PyTorch state dicts -> Flax variables.

Each family of networks describes its published names in a rule module of its own, named in
`RULES` by the class of the network. A rule module has

    target(key, model) -> Target(path, transform), IGNORE, or None where the key means nothing
    input_shape(model, state) -> the shape of an input that `model.init` takes

may have `rename(state) -> state`, for spellings that a key alone does not tell apart,
`check(state, model)`, which raises ValueError where ignored keys contradict the network, and, for
`fcajax convert`, `infer_overrides(state) -> dict`: what the checkpoint says about the
network besides its name (`num_classes`, `use_bias`, ...). All are pure functions; `state` maps
PyTorch names to NumPy arrays. The transforms (`conv`, `dense`, `vector`) live in
`fcajax.weights.rules`, with helpers for names that families share.
"""
import importlib
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fcajax.weights.rules import IGNORE

RULES = {
    'ResNet': 'fcajax.weights.names_resnet',
    'DctResNet': 'fcajax.weights.names_dct',
    'MobileNetV2': 'fcajax.weights.names_dct',
    'FFCResNet': 'fcajax.weights.names_ffc',
    'FastFourierConv': 'fcajax.weights.names_ffc',
    'SpectralTransform': 'fcajax.weights.names_ffc',
    'FourierUnit': 'fcajax.weights.names_ffc',
    'FFCSqueezeExcite': 'fcajax.weights.names_ffc',
}

_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


class MismatchError(ValueError):
  """A checkpoint and a network that do not fit; the message lists every difference."""


def rules_for(model):
  """The rule module of the class of `model`, or of a class it derives from."""
  for cls in type(model).__mro__:
    if cls.__name__ in RULES:
      return importlib.import_module(RULES[cls.__name__])
  raise ValueError(f'no PyTorch names are known for {type(model).__name__}; '
                   f'there are rules for {", ".join(RULES)}')


def clean_state(checkpoint):
  """`tensors` as NumPy arrays, their names without `shared_prefix`."""
  arrays = tensors(checkpoint)
  prefix = shared_prefix(arrays)
  return {k[len(prefix):]: _to_numpy(v) for k, v in arrays.items()}


def tensors(checkpoint):
  """The state dict in a checkpoint as `torch.load` returns it.

  Looks inside wrappers (`state_dict`, `model`, ...) and leaves out what is no array.

  Raises:
    ValueError: there is no state dict in it.
  """
  state = checkpoint
  while isinstance(state, Mapping):
    inner = [state[w] for w in _WRAPPERS if isinstance(state.get(w), Mapping)]
    if not inner:
      break
    state = inner[0]
  arrays = {k: v for k, v in state.items() if _is_array(v)} if isinstance(state, Mapping) else {}
  if not arrays:
    what = (f'a {type(checkpoint).__name__}' if not isinstance(checkpoint, Mapping) else
            f'a dict with the keys {sorted(map(str, checkpoint))[:8]}')
    raise ValueError(f'the checkpoint is no state dict: it holds {what}, not tensors by name; '
                     'save model.state_dict() instead')
  return arrays


def shared_prefix(names):
  """What wrappers put before every one of `names`: 'module.', 'model._orig_mod.', ... or ''.

  DataParallel adds `module.`, torch.compile `_orig_mod.` and a Lightning module mostly `model.`.
  """
  prefix = ''
  while True:
    rest = [name[len(prefix):] for name in names]
    for wrapper in ('module.', '_orig_mod.', 'model.'):
      # The published DCT ResNets have their stages in `model.0`, `model.1`, ...
      if all(re.match(re.escape(wrapper) + r'\D', name) for name in rest):
        prefix += wrapper
        break
    else:
      return prefix


def _is_array(value):
  return hasattr(value, 'shape') and hasattr(value, 'dtype')


def _to_numpy(value):
  if isinstance(value, np.ndarray):
    return value
  if hasattr(value, 'detach'):
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
  return np.asarray(value)


def from_torch(state_dict, model, input_shape=None):
  """The variables of `model`, `{'params', 'batch_stats'}` of NumPy arrays, from PyTorch weights.

  Args:
    state_dict: what `model.state_dict()` or `torch.load` gives: tensors or NumPy arrays by
      PyTorch name, possibly inside a wrapper (`state_dict`, `model`) or all prefixed `module.`,
      `_orig_mod.` or `model.`.
    model: a network of `create_model`.
    input_shape: `[N, H, W, C]` of an input, or the pair of a layer that takes (local, global),
      one of which may be None; None takes what the family's rules say.

  Raises:
    MismatchError: every key that has no place, every parameter that found no key and every
      shape that differs, in one message.
    ValueError: stored filters that are not those of the network.
  """
  state = clean_state(state_dict)
  rules = rules_for(model)
  if hasattr(rules, 'rename'):
    state = rules.rename(state)
  if hasattr(rules, 'check'):
    rules.check(state, model)
  shape = tuple(input_shape or rules.input_shape(model, state))
  expected = jax.eval_shape(
      lambda: model.init(jax.random.key(0), _zeros(shape), train=False))
  expected = {path: leaf for path, leaf in traverse_util.flatten_dict(dict(expected)).items()
              if path[0] in ('params', 'batch_stats')}

  found, unknown, differing = {}, [], []
  for key, value in state.items():
    target = rules.target(key, model)
    if target is IGNORE:
      continue
    if target is None or target.path not in expected:
      unknown.append(f'{key} {list(value.shape)}' +
                     ('' if target is None else f' -> {"/".join(target.path)}'))
      continue
    want = expected[target.path]
    converted = target.transform(value, want.shape)
    if converted is None or converted.shape != want.shape:
      differing.append(f'{key} {list(value.shape)} -> {"/".join(target.path)} {list(want.shape)}')
    elif target.path in found:
      unknown.append(f'{key} (a second source of {"/".join(target.path)})')
    found[target.path] = converted
  missing = ['/'.join(path) + f' {list(expected[path].shape)}'
             for path in expected if path not in found]
  _raise_mismatches(type(model).__name__, unknown, differing, missing)
  return traverse_util.unflatten_dict(
      {path: np.asarray(found[path], expected[path].dtype) for path in expected})


def _zeros(shape):
  if all(isinstance(size, int) for size in shape):
    return jnp.zeros(shape)
  return tuple(None if half is None else jnp.zeros(half) for half in shape)


def _raise_mismatches(name, unknown, differing, missing):
  sections = (('keys of the checkpoint without a place in the network', unknown),
              ('shapes that differ (PyTorch -> Flax)', differing),
              ('parameters of the network without a key in the checkpoint', missing))
  lines = [f'{len(items)} {title}:\n  ' + '\n  '.join(items) for title, items in sections if items]
  if lines:
    raise MismatchError(f'the checkpoint does not fit this {name}.\n' + '\n'.join(lines))
