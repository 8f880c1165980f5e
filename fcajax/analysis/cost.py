"""Multiply-adds, parameters and activations of a network, counted from its jaxpr."""
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from fcajax.layers.streams import variable_shapes
from fcajax.ops.convolution import force_lowering

_STAGE = re.compile(r'(stem|stage\d+|head)')
_OTHER = 'other'


@dataclasses.dataclass(frozen=True)
class Counts:
  """Counts of one stage, or of the whole network, for one image.

  Attributes:
    parameters: trained values; batch-norm running statistics are not among them.
    macs: multiply-adds of convolutions and matrix products. A padded convolution counts every tap
      at every output position, also those that fall on the padding; biases count nothing.
    dct_macs: multiply-adds of the attention layers' DCT sums (named scope 'dct').
    fourier_macs: multiply-adds inside Fourier transforms (named scope 'fourier_transform'): of
      the matrix products where the transform is computed by them, else the nominal
      `2.5 N log2 N` of a complex transform of N points and half of it for a real one.
    activations: output values of convolutions and matrix products outside those two scopes.
  """
  parameters: int = 0
  macs: int = 0
  dct_macs: int = 0
  fourier_macs: int = 0
  activations: int = 0

  def __add__(self, other: 'Counts') -> 'Counts':
    return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


@dataclasses.dataclass(frozen=True)
class Cost:
  """Counts of a network for one image of `input_shape` `(H, W, C)`.

  Attributes:
    input_shape: `(H, W, C)`.
    stages: name ('stem', 'stage1', ..., 'head', and 'other' for what belongs to none) -> Counts,
      in the order of computation.
    output_shapes: the same names -> `(H, W, C)` at the end of the stage, where the network
      returns its features; `(classes,)` for the head.
  """
  input_shape: tuple[int, ...]
  stages: dict[str, Counts]
  output_shapes: dict[str, tuple[int, ...]]

  @property
  def total(self) -> Counts:
    """The sum over all stages."""
    return sum(self.stages.values(), Counts())


def stage_of(path: Sequence[str]) -> str:
  """Returns the stage of a module path such as `('ResNet', 'stage2', 'block0', 'conv1')`."""
  for part in path:
    if match := _STAGE.match(part):
      return match[1]
  return _OTHER


def _order(stage: str) -> int:
  # 'other' last; 'head' after every stage.
  rank = {'stem': -1, 'head': 10_000, _OTHER: 10_001}
  return rank.get(stage) if stage in rank else int(stage[len('stage'):])


def _inner_jaxprs(eqn: Any) -> list[tuple[Any, int]]:
  """Returns the (jaxpr, number of runs) pairs of an equation that calls others."""
  name, params = eqn.primitive.name, eqn.params
  if name == 'cond':
    # One branch runs; the count is that of the most expensive one.
    return [(max(params['branches'], key=lambda branch: _jaxpr_macs(branch.jaxpr)), 1)]
  times = 1
  if name == 'scan':
    times = params['length']
  elif name == 'shard_map':
    # 'newly_manual_axes' in some JAX versions, 'manual_axes' in others.
    axes = next(value for key, value in params.items() if key.endswith('manual_axes'))
    times = math.prod(params['mesh'].shape[axis] for axis in axes)
  found = []
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(item, (jex_core.Jaxpr, jex_core.ClosedJaxpr)):
        found.append((item, times))
  return found


def _jaxpr_macs(jaxpr: Any) -> int:
  return sum(count.macs for _, count in _walk(jaxpr, ()))


def _products(eqn: Any) -> int:
  """Returns the multiply-adds of one convolution or matrix product."""
  out = eqn.outvars[0].aval
  left, right = (v.aval for v in eqn.invars[:2])
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    return out.size * math.prod(left.shape[axis] for axis in contracted)
  features = right.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
  # The zeros that a transposed convolution puts between its inputs are not multiplied.
  return out.size * right.size // (features * math.prod(eqn.params['lhs_dilation']))


def _fft_macs(eqn: Any) -> int:
  lengths = eqn.params['fft_lengths']
  points = math.prod(lengths)
  kind = eqn.params['fft_type'].name
  # The side of the transform that has all N points; the other holds half a spectrum.
  whole = eqn.outvars[0] if kind == 'IRFFT' else eqn.invars[0]
  transforms = whole.aval.size // points
  return round(transforms * (1.25 if 'RFFT' in kind else 2.5) * points * math.log2(points))


def _walk(jaxpr: Any, outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Counts]]:
  """Yields (scope names, Counts) of every equation that multiplies."""
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  for eqn in jaxpr.eqns:
    scope = outer + tuple(part for part in str(eqn.source_info.name_stack).split('/') if part)
    name = eqn.primitive.name
    if name in ('dot_general', 'conv_general_dilated'):
      macs, size = _products(eqn), eqn.outvars[0].aval.size
      if 'dct' in scope:
        yield scope, Counts(dct_macs=macs)
      elif 'fourier_transform' in scope:
        yield scope, Counts(fourier_macs=macs)
      else:
        yield scope, Counts(macs=macs, activations=size)
    elif name == 'fft':
      yield scope, Counts(fourier_macs=_fft_macs(eqn))
    elif name == 'mul' and 'dct' in scope:
      yield scope, Counts(dct_macs=eqn.outvars[0].aval.size)
    else:
      for inner, times in _inner_jaxprs(eqn):
        for inner_scope, count in _walk(inner, scope):
          yield inner_scope, Counts(*(times * n for n in dataclasses.astuple(count)))


def count_function(function: Callable[..., Any], *args: Any) -> dict[str, Counts]:
  """Counts one call of `function`; its arguments may be `jax.ShapeDtypeStruct`s.

  Inner calls (`jit`, `remat`, custom derivatives, `shard_map`, `scan` times its length) are
  followed; of a `cond` the most expensive branch counts, of a `while` loop one iteration.

  Returns:
    Stage name -> Counts without parameters.
  """
  # Traces with XLA's convolution, so that counts do not depend on the backend. A new function,
  # because a cached trace could hold another lowering of the same convolutions.
  with force_lowering('conv'):
    jaxpr = jax.make_jaxpr(lambda *a: function(*a))(*args)
  stages = {}
  for scope, count in _walk(jaxpr, ()):
    stage = stage_of(scope)
    stages[stage] = stages.get(stage, Counts()) + count
  return stages


def count(model: Any, input_shape: tuple[int, int, int]) -> Cost:
  """Counts `model` in evaluation mode for one image.

  Nothing is computed or allocated: shapes alone are traced. A Fourier transform whose
  implementation is 'auto' counts as 'fft', so that the counts are the same everywhere.

  Args:
    model: a network of `create_model`.
    input_shape: `(H, W, C)` of one input image.
  """
  if getattr(model, 'fourier_implementation', None) == 'auto':
    model = model.clone(fourier_implementation='fft')
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  variables = variable_shapes(model, image)
  stages = count_function(lambda v, x: model.apply(v, x, train=False), variables, image)
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables['params']):
    stage = stage_of(tuple(part.key for part in path))
    stages[stage] = stages.get(stage, Counts()) + Counts(parameters=leaf.size)
  logits, features = jax.eval_shape(
      lambda v, x: model.apply(v, x, train=False, capture_features=True), variables, image)
  shapes = {stage: tuple(value.shape[1:]) for stage, value in features.items() if stage in stages}
  shapes['head'] = tuple(logits.shape[1:])
  return Cost(tuple(input_shape), {s: stages[s] for s in sorted(stages, key=_order)}, shapes)
