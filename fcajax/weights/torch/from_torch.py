"""PyTorch state dicts -> Flax variables.

Each family of networks describes its published names in a rule module of its own, listed in
`RULES` by the class of the network. A rule module has

    target(key, model) -> Target(path, transform), IGNORE, or None where the key means nothing
    input_shape(model, state) -> the shape of an input that `model.init` takes
    infer_overrides(state) -> dict: fields of the network that the checkpoint tells
                              (`num_classes`, `use_bias`, ...), for `fcajax convert`

and may have `rename(state) -> state`, for spellings that a key alone does not tell apart, and
`check(state, model)`, which raises UserError where ignored keys contradict the network. All are
pure functions; `state` maps PyTorch names to NumPy arrays. The transforms (`conv`, `dense`,
`vector`) live in `fcajax.weights.torch.rules`, with helpers for names that families share.
"""
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from fcajax.errors import UserError
from fcajax.layers.streams import variable_shapes
from fcajax.weights.torch import names_detection, names_pose
from fcajax.weights.torch.backbone_rules import BACKBONE_RULES, find_rules
from fcajax.weights.torch.rules import IGNORE

RULES = {
    **BACKBONE_RULES,
    'SimpleBaseline': names_pose,
    'TwoStageDetector': names_detection,
}

_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


class MismatchError(UserError):
  """A checkpoint and a network that do not fit; the message lists every difference."""


def rules_for(model: Any) -> ModuleType:
  """Returns the rule module of the class of `model`, or of a class that it derives from."""
  rules = find_rules(model, RULES)
  if rules is not None:
    return rules
  raise UserError(f'no PyTorch names are known for {type(model).__name__}; '
                  f'there are rules for {", ".join(RULES)}')


def clean_state(checkpoint: Any) -> dict[str, np.ndarray]:
  """Returns `tensors` as NumPy arrays, their names without `shared_prefix`."""
  arrays = tensors(checkpoint)
  prefix = shared_prefix(arrays)
  return {k[len(prefix):]: _to_numpy(v) for k, v in arrays.items()}


def tensors(checkpoint: Any) -> dict[str, Any]:
  """Finds the state dict in a checkpoint as `torch.load` returns it.

  Looks inside wrappers (`state_dict`, `model`, ...) and leaves out what is no array.

  Raises:
    UserError: there is no state dict in it.
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
    raise UserError(f'the checkpoint is no state dict: it holds {what}, not tensors by name; '
                    'save model.state_dict() instead')
  return arrays


def shared_prefix(names: Iterable[str]) -> str:
  """Returns the prefix that wrappers put before every one of `names`, or ''.

  DataParallel adds `module.`, torch.compile `_orig_mod.` and a Lightning module mostly `model.`;
  several of them may stand one after the other.
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


def _is_array(value: Any) -> bool:
  return hasattr(value, 'shape') and hasattr(value, 'dtype')


def _to_numpy(value: Any) -> np.ndarray:
  if isinstance(value, np.ndarray):
    return value
  if hasattr(value, 'detach'):
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()
  return np.asarray(value)


def from_torch(state_dict: Any, model: Any,
               input_shape: Sequence[Any] | None = None) -> dict[str, Any]:
  """Converts PyTorch weights to the variables of `model`, `{'params', 'batch_stats'}` in NumPy.

  Args:
    state_dict: what `model.state_dict()` or `torch.load` gives: tensors or NumPy arrays by
      PyTorch name, possibly inside a wrapper (`state_dict`, `model`) or all prefixed `module.`,
      `_orig_mod.` or `model.`.
    model: a network of `create_model`.
    input_shape: `[N, H, W, C]` of an input, or the pair of a layer that takes (local, global),
      one of which may be None; None takes what the family's rules say.

  Raises:
    MismatchError: every key that has no destination, every parameter that found no key and every
      shape that differs, in one message.
    UserError: stored filters that are not those of the network.
  """
  state = clean_state(state_dict)
  rules = rules_for(model)
  if hasattr(rules, 'rename'):
    state = rules.rename(state)
  if hasattr(rules, 'check'):
    rules.check(state, model)
  shape = tuple(input_shape or rules.input_shape(model, state))
  expected = variable_shapes(model, _inputs(shape))
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


def _inputs(shape: tuple[Any, ...]) -> Any:
  if all(isinstance(size, int) for size in shape):
    return jax.ShapeDtypeStruct(shape, 'float32')
  return tuple(None if half is None else jax.ShapeDtypeStruct(tuple(half), 'float32')
               for half in shape)


def _raise_mismatches(name: str, unknown: list[str], differing: list[str],
                      missing: list[str]) -> None:
  sections = (('keys of the checkpoint that the network does not have', unknown),
              ('shapes that differ (PyTorch -> Flax)', differing),
              ('parameters of the network without a key in the checkpoint', missing))
  lines = [f'{len(items)} {title}:\n  ' + '\n  '.join(items) for title, items in sections if items]
  if lines:
    raise MismatchError(f'the checkpoint does not fit this {name}.\n' + '\n'.join(lines))
