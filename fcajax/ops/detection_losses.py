"""Losses of two-stage detectors, summed with weights; the caller divides by its normaliser."""
import jax
import jax.numpy as jnp

from fcajax.typing import Array, Float, Int


def binary_cross_entropy(
    logits: Float[Array, '*shape'], targets: Float[Array, '*shape'],
) -> Float[Array, '*shape']:
  """Computes `-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))` of each element."""
  return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def cross_entropy(logits: Float[Array, '*n c'], labels: Int[Array, '*n']) -> Float[Array, '*n']:
  """Computes `-log softmax(x)[label]` of each row."""
  return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]


def smooth_l1(difference: Float[Array, '*shape'], beta: float = 0.0) -> Float[Array, '*shape']:
  """Computes `0.5 d^2 / beta` below `beta` and `|d| - beta / 2` above; `beta=0` is |d|.

  Source: Girshick, "Fast R-CNN", ICCV 2015, equation 3.
  """
  size = jnp.abs(difference)
  if not beta:
    return size
  return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)
