"""Sums of metrics that stay on the devices until the host asks for them."""
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from clu.metrics import Average
from clu.metrics import Metric as Accumulator

from fcajax.typing import AnyArray, Array, Float

_NEVER = 2**31 - 1


class Mean(NamedTuple):
  """A weighted mean over all devices, given as the two sums of one device's share of the batch.

  A loss that is divided by a number that the data decide, such as the sampled boxes, is a `Mean`:
  totals and weights are added over the devices before the division, so that the result does not
  depend on how many devices there are.

  Attributes:
    total: scalar array, the sum of the weighted values.
    weight: scalar array, the sum of their weights.
  """

  total: Any
  weight: Any


@flax.struct.dataclass
class FirstNotFinite(Accumulator):
  """The first step whose values were not all finite; `compute` returns None if all were.

  Attributes:
    step: int32 scalar (an array, or what stands for one in a tree).
  """

  step: Any

  @classmethod
  def empty(cls) -> 'FirstNotFinite':
    return cls(step=jnp.array(_NEVER, jnp.int32))

  @classmethod
  def from_values(cls, step: Any, *values: Float[Array, '']) -> 'FirstNotFinite':
    """Records `step` (int32 scalar) if one of the scalars `values` is not finite."""
    finite = jnp.all(jnp.stack([jnp.isfinite(value) for value in values]))
    return cls(step=jnp.where(finite, _NEVER, step).astype(jnp.int32))

  def merge(self, other: 'FirstNotFinite') -> 'FirstNotFinite':
    return type(self)(step=jnp.minimum(self.step, other.step))

  def compute(self) -> int | None:
    step = int(self.step)
    return None if step == _NEVER else step


def averages(mask: AnyArray | None = None, **values: AnyArray | Mean) -> dict[str, Average]:
  """Returns a `clu.metrics.Average` for each keyword.

  Args:
    mask: `[N]`, 0 for the examples that do not count; None counts all.
    **values: `[N]`, a scalar, or a `Mean`, to which `mask` does not apply.
  """
  result = {}
  for name, value in values.items():
    if isinstance(value, Mean):
      result[name] = Average(
          total=jnp.asarray(value.total, jnp.float32), count=jnp.asarray(value.weight))
      continue
    value = jnp.asarray(value, jnp.float32)
    use = mask if mask is not None and value.ndim else None
    result[name] = Average.from_model_output(value, mask=use)
  return result


def _is_accumulator(value: Any) -> bool:
  return isinstance(value, Accumulator)


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
  """Adds two dictionaries of sums with the same keys; a value is an accumulator or an array."""
  return {
      name: value.merge(right[name]) if _is_accumulator(value) else value + right[name]
      for name, value in left.items()}


def zeros(shapes: dict[str, Any]) -> dict[str, Any]:
  """Returns empty sums of the same structure as `shapes` (from `jax.eval_shape`)."""
  def empty(value):
    if isinstance(value, FirstNotFinite):
      return FirstNotFinite.empty()
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), value)
  return {name: empty(value) for name, value in shapes.items()}


def reduce_devices(values: dict[str, Any], axis_name: str | None) -> dict[str, Any]:
  """Adds sums over the devices of a mapped axis; returns them unchanged if it is None."""
  if axis_name is None:
    return values
  reduced = {}
  for name, value in values.items():
    if isinstance(value, FirstNotFinite):
      reduced[name] = FirstNotFinite(jax.lax.pmin(value.step, axis_name))
    else:
      reduced[name] = jax.lax.psum(value, axis_name)
  return reduced


def compute(values: dict[str, Any]) -> dict[str, Any]:
  """Fetches sums to the host.

  Returns:
    A float for an average, an int or None for `FirstNotFinite`, a NumPy array for an array.
    Averages of nothing (an auxiliary loss of a model that has none) are left out.
  """
  result = {}
  for name, value in jax.device_get(values).items():
    if isinstance(value, FirstNotFinite):
      result[name] = value.compute()
    elif not isinstance(value, Average):
      result[name] = value
    elif value.count:
      result[name] = float(value.total) / float(value.count)
  return result
