"""Batch normalisation with the defaults and the call that every network here uses."""
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from flax import linen as nn
from jax.typing import DTypeLike

from fcajax.typing import AnyArray, Array, Float

# Called `norm(name=..., [scale_init=...])`; the module it returns is called `(x, train=train)`.
NormFactory: TypeAlias = Callable[..., nn.Module]


class BatchNorm(nn.BatchNorm):
  """Batch normalisation over all axes but the last, with statistics in float32.

      y = scale * (x - mean) / sqrt(var + epsilon) + bias

  `train=True` takes mean and variance from the batch (over every device of `axis_name`, if one
  is given) and moves the running statistics towards them by `1 - momentum`; `train=False` uses
  the running statistics. Momentum 0.9 here is PyTorch's 0.1. The running variance is the biased
  one, as everywhere in Flax; PyTorch's is larger by n / (n - 1).

  Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.
  """
  momentum: float = 0.9
  epsilon: float = 1e-5

  def __call__(self, x: Float[AnyArray, '*n c'], train: bool = False) -> Float[Array, '*n c']:
    return super().__call__(x, use_running_average=not train)


def norm_factory(
    norm: NormFactory | None, dtype: DTypeLike | None, axis_name: Any) -> NormFactory:
  """Returns `norm`, or `BatchNorm` with this dtype and device axis if `norm` is None."""
  return norm or functools.partial(BatchNorm, dtype=dtype, axis_name=axis_name)
