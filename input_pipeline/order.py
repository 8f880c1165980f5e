"""Which examples each batch holds: endless training orders and the finite evaluation order.

An order is a function of the batch's number alone, so that a run can resume anywhere.
"""
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from fcajax.typing import Int, Integer

_ENDLESS = 1 << 62  # examples; the length of a Grain data set must stay below sys.maxsize


class Request(NamedTuple):
  """One process's share of a batch.

  Attributes:
    positions: of the examples in the endless order.
    indices: of the examples in the data set; the data set's length and above stand for padding.
    group: of all of them.
  """
  positions: Int[np.ndarray, ' n']
  indices: Int[np.ndarray, ' n']
  group: int


class Share(NamedTuple):
  """The share of process `index` of `count`: every `count`-th example of a batch."""
  index: int
  count: int

  def positions(self, batch: int, batch_size: int) -> Int[np.ndarray, ' n']:
    """Returns the positions of this process's examples of a batch, over all batches."""
    return batch * batch_size + np.arange(self.index, batch_size, self.count)


class ShuffledOrder:
  """Every epoch is a new permutation of all examples; epochs follow each other without a gap."""

  def __init__(self, count: int, batch_size: int, seed: int, share: Share):
    self._order = grain.MapDataset.range(count).seed(int(seed) % 2**32).shuffle().repeat(
        _ENDLESS // count)
    self._batch_size, self._share = batch_size, share

  def __call__(self, batch: int) -> Request:
    positions = self._share.positions(batch, self._batch_size)
    return Request(positions, np.array([self._order[int(p)] for p in positions]), 0)


class GroupedOrder:
  """Batches of one group each, in random order.

  In every epoch each group is permuted and cut into batches. The last batch of a group is filled up
  with the group's first examples of that epoch. The batches of all groups are then permuted.
  """

  def __init__(self, groups: Sequence[int] | Integer[np.ndarray, ' n'], batch_size: int, seed: int,
               share: Share):
    self._members = members_of(groups)
    self._batch_size, self._share, self._seed = batch_size, share, int(seed) % 2**32
    self._counts = [-(-len(members) // batch_size) for members in self._members]
    self._epoch = -1, None

  @property
  def sizes(self) -> list[int]:
    """The number of examples of each group."""
    return [len(members) for members in self._members]

  def _table(self, epoch):
    """(group `[b]`, indices `[b, batch_size]`) of the batches of an epoch."""
    known, table = self._epoch
    if known != epoch:
      generator = np.random.default_rng([self._seed, 0x6121, epoch])
      rows = [np.resize(generator.permutation(members), (count, self._batch_size))
              for members, count in zip(self._members, self._counts) if count]
      groups = np.repeat(np.arange(len(self._counts)), self._counts)
      order = generator.permutation(len(groups))
      table = groups[order], np.concatenate(rows)[order]
      self._epoch = epoch, table
    return table

  def __call__(self, batch: int) -> Request:
    epoch, number = divmod(int(batch), sum(self._counts))
    groups, indices = self._table(epoch)
    positions = self._share.positions(batch, self._batch_size)
    return Request(positions, indices[number, self._share.index::self._share.count],
                   int(groups[number]))


class EvaluationOrder:
  """Every example once, group after group; the last batch of a group is padded."""

  def __init__(self, count: int, groups: Sequence[int] | Integer[np.ndarray, ' n'] | None,
               batch_size: int, share: Share):
    self._members = [np.arange(count)] if groups is None else members_of(groups)
    self._padding, self._batch_size, self._share = count, batch_size, share
    counts = [-(-len(members) // batch_size) for members in self._members]
    self._starts = np.cumsum([0, *counts])

  def __len__(self) -> int:
    return int(self._starts[-1])

  def __call__(self, batch: int) -> Request:
    group = int(np.searchsorted(self._starts, batch, 'right')) - 1
    members = self._members[group]
    ranks = self._share.positions(batch - int(self._starts[group]), self._batch_size)
    known = ranks < len(members)
    indices = np.where(known, members[np.where(known, ranks, 0)], self._padding)
    return Request(self._share.positions(batch, self._batch_size), indices, group)


def members_of(
    groups: Sequence[int] | Integer[np.ndarray, ' n'],
) -> list[Int[np.ndarray, ' _']]:
  """Returns the ascending indices of the examples of each group."""
  groups = np.asarray(groups)
  return [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]


def endless_batches(batch_size: int) -> int:
  """Returns the number of batches that stands for an endless order."""
  return _ENDLESS // batch_size
