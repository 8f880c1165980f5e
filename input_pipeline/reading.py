"""From a request to a batch: examples are read in parallel threads, damaged ones are skipped."""
import concurrent.futures
import os
from collections.abc import Callable
from typing import Any

import cv2
import jax
import numpy as np
import threadpoolctl

from fcajax.errors import UserError
from fcajax.input_pipeline.order import Request, members_of
from fcajax.input_pipeline.sources.base import (
  SKIPPED_ERRORS,
  ArrayExamples,
  Batch,
  Examples,
)

# The key of a batch under which (index, reason) of the skipped examples reach the pipeline.
SKIPPED = 'skipped'
# The key of the float32 mask of an evaluation batch.
MASK = 'mask'
_CHUNK = 8  # examples that a task of the thread pool reads: fewer tasks, and still an even load
_SUBSTITUTES = 64
_TRAIN_STREAM = 1

Skipped = list[tuple[int, str]]


class CorruptDataError(UserError):
  """More examples than allowed cannot be read."""


def available_cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def example_generator(seed: int, position: int) -> np.random.Generator:
  """Returns the random numbers of one training example.

  They depend on the seed and the example's position in the training order alone: not on the batch
  size, the process, the thread or what was drawn before.
  """
  bits = np.random.Philox(key=[seed % 2**64, _TRAIN_STREAM], counter=[0, 0, 0, position])
  return np.random.Generator(bits)


class _Threads:
  """A pool of threads, made in the process that first uses it."""

  def __init__(self, threads: int):
    self._threads = threads or min(16, available_cores())
    self._pool = None

  def __getstate__(self):
    return {**self.__dict__, '_pool': None}

  def map(self, count: int, one: Callable[[int], list[Any]]) -> list[Any]:
    """Calls `one(slot)` for every slot; returns what the calls returned, joined."""
    if self._threads == 1 or count <= _CHUNK:
      return [item for slot in range(count) for item in one(slot)]
    if self._pool is None:
      # Threads of OpenCV and of NumPy's matrix products would compete with these.
      cv2.setNumThreads(0)
      threadpoolctl.threadpool_limits(1, 'blas')
      self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, 'read')

    def chunk(start):
      return [i for slot in range(start, min(start + _CHUNK, count)) for i in one(slot)]

    return [i for part in self._pool.map(chunk, range(0, count, _CHUNK)) for i in part]


def _zeros(spec, count):
  return jax.tree.map(lambda array: np.zeros((count, *array.shape), array.dtype), spec)


def _slot(batch, index):
  return jax.tree.map(lambda array: array[index, ...], batch)


def _clear(slot):
  for array in jax.tree.leaves(slot):
    array[...] = 0


class TrainReader:
  """Requests to training batches; an example that is damaged is replaced by the next one."""

  def __init__(self, examples: Examples, seed: int, threads: int):
    self._examples, self._seed, self._threads = examples, seed, _Threads(threads)
    groups = getattr(examples, 'groups', None)
    self._members = None if groups is None else members_of(groups)

  def _candidates(self, index, group):
    """The example itself, then those that follow it in its group."""
    if self._members is None:
      count = len(self._examples)
      return ((index + step) % count for step in range(min(_SUBSTITUTES, count)))
    members = self._members[group]
    start = int(np.searchsorted(members, index))
    return (int(members[(start + step) % len(members)])
            for step in range(min(_SUBSTITUTES, len(members))))

  def __call__(self, request: Request) -> Batch:
    batch = _zeros(self._examples.spec(request.group), len(request.indices))

    def one(slot):
      skipped, out = [], _slot(batch, slot)
      for index in self._candidates(int(request.indices[slot]), request.group):
        try:
          generator = example_generator(self._seed, int(request.positions[slot]))
          self._examples.load(index, out, generator)
          return skipped
        except SKIPPED_ERRORS as error:
          skipped.append((index, str(error)))
          _clear(out)
      names = ', '.join(self._examples.name(index) for index, _ in skipped[:5])
      raise CorruptDataError(f'{len(skipped)} examples in a row cannot be read: {names}, ...; '
                             f'the first: {skipped[0][1]}')

    skipped = self._threads.map(len(request.indices), one)
    return {**batch, SKIPPED: sorted(dict(skipped).items())}


class EvaluationReader:
  """Requests to evaluation batches; padding and damaged examples are zero and have mask 0."""

  def __init__(self, examples: Examples, threads: int):
    self._examples, self._threads = examples, _Threads(threads)

  def __call__(self, request: Request) -> Batch:
    batch = _zeros(self._examples.spec(request.group), len(request.indices))
    mask = np.zeros(len(request.indices), np.float32)

    def one(slot):
      index = int(request.indices[slot])
      if index >= len(self._examples):
        return []
      out = _slot(batch, slot)
      try:
        self._examples.load(index, out, None)
      except SKIPPED_ERRORS as error:
        _clear(out)
        return [(index, str(error))]
      mask[slot] = 1
      return []

    skipped = self._threads.map(len(request.indices), one)
    return {**batch, MASK: mask, SKIPPED: skipped}


class ArrayReader:
  """Requests to batches out of memory; `evaluation` adds the mask."""

  def __init__(self, examples: ArrayExamples, evaluation: bool):
    self._examples, self._evaluation = examples, evaluation

  def __call__(self, request: Request) -> Batch:
    known = request.indices < len(self._examples)
    chosen = np.where(known, request.indices, 0)
    batch = jax.tree.map(lambda array: array[chosen], self._examples.arrays)
    if not self._evaluation:
      return {**batch, SKIPPED: []}
    for array in jax.tree.leaves(batch):
      array[~known] = 0
    return {**batch, MASK: known.astype(np.float32), SKIPPED: []}
