"""Non-maximum suppression in static shapes, with exactly the greedy algorithm's result."""
import jax.numpy as jnp
from jax import lax

from fcajax.ops.boxes import pairwise_overlap
from fcajax.typing import Array, Bool, Float, Int

# Boxes compared with each other at once: the matrix of their overlaps fits into a CPU's cache.
BLOCK = 256


def nms(
    boxes: Float[Array, 'n 4'], scores: Float[Array, ' n'], threshold: float | Float[Array, ''],
    groups: Int[Array, ' n'] | None = None, valid: Bool[Array, ' n'] | None = None,
    limit: int | None = None, block: int = BLOCK,
) -> tuple[Int[Array, ' k'], Bool[Array, ' k']]:
  """Keeps the best of boxes that overlap.

  The greedy result: by falling score (equal scores in the order given), a box is kept unless its
  IoU with a kept box of its group is greater than `threshold`. As a fixed point,

      keep_i = valid_i and no j < i with keep_j, group_j = group_i and iou(i, j) > threshold,

  whose solution is unique: repeated substitution ends when nothing changes. The boxes are taken in
  blocks by score, so that the work is n x (kept boxes) rather than n x n and ends when `limit`
  boxes are kept.

  Args:
    boxes, scores: candidates.
    threshold: IoU above which the lower score goes.
    groups: levels or classes; boxes of different groups do not see each other.
    valid: False for padding; a score that is NaN counts as padding too.
    limit: how many boxes to return at most; None, all.
    block: boxes compared with each other at once.

  Returns:
    (indices, kept): the kept boxes, best first; where `kept` is False the index means nothing.
  """
  n = boxes.shape[0]
  size = n if limit is None else min(limit, n)
  if size == 0:
    return jnp.zeros(0, jnp.int32), jnp.zeros(0, bool)
  block = min(block, n)
  valid = ~jnp.isnan(scores) if valid is None else valid & ~jnp.isnan(scores)
  groups = jnp.zeros(n, jnp.int32) if groups is None else groups
  order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True).astype(jnp.int32)
  padding = -n % block
  boxes, groups, valid = (
      jnp.pad(x[order], ((0, padding),) + ((0, 0),) * (x.ndim - 1)) for x in (boxes, groups, valid))
  earlier = jnp.tril(jnp.ones((block, block), bool), -1)
  total = valid.sum()

  def suppress(a, b, group_a, group_b):
    return (pairwise_overlap(a, b) > threshold) & (group_a[:, None] == group_b)

  def next_block(state):
    start, count, kept = state
    rows, group, usable = (
        lax.dynamic_slice_in_dim(x, start, block) for x in (boxes, groups, valid))
    before = suppress(rows, boxes[kept], group, groups[kept]) & (jnp.arange(size) < count)
    usable = usable & ~before.any(axis=1)
    inside = suppress(rows, rows, group, group) & earlier
    keep = _fixed_point(inside, usable)
    place = jnp.where(keep, count + jnp.cumsum(keep) - 1, size)
    kept = kept.at[place].set(start + jnp.arange(block, dtype=jnp.int32), mode='drop')
    return start + block, jnp.minimum(count + keep.sum(), size), kept

  _, count, kept = lax.while_loop(
      lambda state: (state[0] < total) & (state[1] < size), next_block,
      (jnp.int32(0), jnp.int32(0), jnp.zeros(size, jnp.int32)))
  return order[jnp.minimum(kept, n - 1)], jnp.arange(size) < count


def _fixed_point(suppresses: Bool[Array, 'b b'], usable: Bool[Array, ' b']) -> Bool[Array, ' b']:
  """Solves keep_i = usable_i and not any_j (suppresses_ij and keep_j), j < i."""
  def substitute(state):
    keep, _ = state
    return usable & ~(suppresses & keep).any(axis=1), keep

  def changed(state):
    return (state[0] != state[1]).any()

  return lax.while_loop(changed, substitute, substitute((usable, usable)))[0]
