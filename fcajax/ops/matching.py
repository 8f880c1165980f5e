"""Which ground truth an anchor or proposal is trained on, and which of them are sampled.

Codes of candidates: the index of a ground truth, `NEGATIVE`, or `UNUSED`.
"""
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fcajax.ops.boxes import pairwise_overlap
from fcajax.typing import Array, Bool, Float, Int

NEGATIVE, UNUSED = -1, -2


class Assigner(NamedTuple):
  """The rule of an assignment by the largest IoU.

  Attributes:
    positive: a candidate with an IoU of at least this goes to the ground truth it overlaps most.
    negative: a candidate whose largest IoU is below this is negative; in between it is unused.
    low_quality: 'none'; 'ground_truth' gives the best candidates of a ground truth to that ground
      truth, of equal ones to the last (mmdetection); 'candidate' gives them to the ground truth
      that they overlap most (torchvision).
    minimum: smallest IoU of a low-quality match.
    crowd: candidates of which more than this share lies in a crowd region are unused; None does
      not look at crowds, as mmdetection's published settings.
  """
  positive: float
  negative: float
  low_quality: Literal['none', 'ground_truth', 'candidate'] = 'none'
  minimum: float = 0.0
  crowd: float | None = None


def assign(
    assigner: Assigner, boxes: Float[Array, 'n 4'], truth: Float[Array, 'g 4'],
    truth_valid: Bool[Array, ' g'], valid: Bool[Array, ' n'] | None = None,
    crowd: Bool[Array, ' g'] | None = None,
) -> Int[Array, ' n']:
  """Assigns each box to a ground truth.

  Args:
    assigner: the rule.
    boxes: anchors or proposals.
    truth: ground truth, padded to a fixed number of rows.
    truth_valid: False for padding; the code of no box is such a row.
    valid: False for boxes that take no part; their code is `UNUSED`.
    crowd: True for rows of `truth` that are regions of crowds: never the code of a box.

  Returns:
    codes: index in `truth`, `NEGATIVE` or `UNUSED`.
  """
  real = truth_valid if crowd is None else truth_valid & ~crowd
  # Equality with a maximum is tested below: every use must see the same rounding.
  overlap = lax.optimization_barrier(pairwise_overlap(truth, boxes))
  usable = real[:, None]
  if valid is not None:
    usable = usable & valid[None]
  overlap = jnp.where(usable, overlap, -1.0)
  best = overlap.max(axis=0)
  choice = overlap.argmax(axis=0).astype(jnp.int32)
  codes = jnp.where(best < assigner.negative, NEGATIVE, UNUSED)
  codes = jnp.where(best >= assigner.positive, choice, codes)
  if assigner.low_quality != 'none':
    codes = _add_low_quality(assigner, overlap, choice, codes)
  if assigner.crowd is not None and crowd is not None:
    share = pairwise_overlap(boxes, truth, 'iof')
    in_crowd = jnp.any((share > assigner.crowd) & (crowd & truth_valid), axis=1)
    codes = jnp.where(in_crowd, UNUSED, codes)
  return codes if valid is None else jnp.where(valid, codes, UNUSED)


def _add_low_quality(assigner, overlap, choice, codes):
  """Gives the best candidates of every ground truth a positive code."""
  best_of_truth = overlap.max(axis=1, keepdims=True)
  tied = (overlap == best_of_truth) & (best_of_truth >= assigner.minimum) & (best_of_truth > 0)
  if assigner.low_quality == 'candidate':
    return jnp.where(tied.any(axis=0), choice, codes)
  rows = jnp.arange(overlap.shape[0], dtype=jnp.int32)[:, None]
  last = jnp.where(tied, rows, -1).max(axis=0)
  return jnp.where(last >= 0, last, codes)


class Samples(NamedTuple):
  """Candidates chosen for a loss, positive ones first.

  Attributes:
    indices: into the candidates.
    codes: of those candidates; `UNUSED` where there is no further sample.
  """
  indices: Int[Array, ' s']
  codes: Int[Array, ' s']

  @property
  def positive(self):
    return self.codes >= 0

  @property
  def valid(self):
    return self.codes >= NEGATIVE


def sample(
    codes: Int[Array, ' n'], priority: Float[Array, ' n'], number: int | None,
    positive_fraction: float,
) -> Samples:
  """Chooses candidates: at most a fraction positive ones, negative ones for the rest.

  Args:
    codes: of the candidates.
    priority: within each kind, the candidates of highest priority are taken: uniform random
      numbers for random sampling, losses for online hard example mining (Shrivastava et al.,
      2016).
    number: samples in total; None takes every positive and negative candidate.
    positive_fraction: largest share of positive samples.

  Returns:
    `number` samples (or as many as there are candidates), fewer of them valid where candidates
    are short.
  """
  candidates = codes.shape[0]
  slots = candidates if number is None else min(number, candidates)
  wanted = slots if number is None else int(number * positive_fraction)
  positives = min(wanted, slots)
  found, found_valid = _highest(codes >= 0, priority, max(positives, 1))
  count = jnp.minimum(found_valid.sum(), positives)
  others, others_valid = _highest(codes == NEGATIVE, priority, slots)
  slot = jnp.arange(slots)
  behind = jnp.clip(slot - count, 0, slots - 1)
  ahead = jnp.minimum(slot, found.shape[0] - 1)
  indices = jnp.where(slot < count, found[ahead], others[behind])
  valid = (slot < count) | others_valid[behind]
  return Samples(indices, jnp.where(valid, codes[indices], UNUSED))


def _highest(member, priority, number):
  """The `number` members of highest priority: (indices, whether each is a member)."""
  # Infinite priorities would tie with what is no member; losses may be as large as they like.
  priority = jnp.nan_to_num(priority.astype(jnp.float32))
  values, indices = lax.top_k(jnp.where(member, priority, -jnp.inf), number)
  return indices, values > -jnp.inf


def sampled_mask(samples: Samples, candidates: int) -> Bool[Array, ' n']:
  """Returns True for each of the `candidates` that is among the samples."""
  # Unused slots repeat candidates: the maximum keeps those that another slot has chosen.
  chosen = jnp.zeros(candidates, jnp.int32).at[samples.indices].max(samples.valid.astype(jnp.int32))
  return chosen.astype(bool)


def random_priority(key: jax.Array, candidates: int) -> Float[Array, ' n']:
  """Draws the priorities of random sampling."""
  return jax.random.uniform(key, (candidates,))
