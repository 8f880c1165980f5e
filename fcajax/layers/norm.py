"""Batch normalisation with the defaults and the call that every network here uses."""
from flax import linen as nn


class BatchNorm(nn.BatchNorm):
  """Batch normalisation over `[N, H, W, C]` (or `[N, C]`), statistics per channel in float32.

      y = scale * (x - mean) / sqrt(var + epsilon) + bias

  `train=True` takes mean and variance from the batch (over every device of `axis_name`, if one
  is given) and moves the running statistics towards them by `1 - momentum`; `train=False` uses
  the running statistics. Momentum 0.9 here is PyTorch's 0.1. The running variance is the biased
  one, as everywhere in Flax; PyTorch's is larger by n / (n - 1).

  Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2.
  """
  momentum: float = 0.9
  epsilon: float = 1e-5

  def __call__(self, x, train=False):
    return super().__call__(x, use_running_average=not train)
