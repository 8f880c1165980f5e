"""Batches in their order with Grain: loaded ahead by a thread or by processes, with exact state."""
import signal
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grain
from absl import flags

from fcajax.errors import UserError
from fcajax.input_pipeline.order import Request
from fcajax.input_pipeline.reading import SKIPPED, Skipped
from fcajax.input_pipeline.sources.base import Batch


def batches_of(
    number: int, order: Callable[[int], Request], read: Callable[[Request], Batch],
) -> grain.MapDataset:
  """Returns a random-access data set of `number` batches."""
  return grain.MapDataset.range(number).map(order).map(read)


def iterate(batches: grain.MapDataset, workers: int, prefetch: int) -> Iterator[Batch]:
  """Returns a Grain iterator over batches in their order, loaded by a thread or by processes."""
  if not workers:
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
    return iter(batches.to_iter_dataset(options))
  if not flags.FLAGS.is_parsed():
    # Grain reads its flags to start workers; outside absl's app.run nobody parses them.
    flags.FLAGS.mark_as_parsed()
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  per_worker = max(1, -(-prefetch // workers))
  return iter(batches.to_iter_dataset(options).mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=per_worker),
      worker_init_fn=_ignore_interrupts))


def _ignore_interrupts(index, count):
  """Ctrl-C reaches every process of a terminal; the main one decides when the workers end."""
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(running):
  while running:
    running.pop().close()


class TrainIterator:
  """The endless training batches, with a state that any worker or process count resumes exactly.

  Args:
    batches: see `batches_of`.
    order: JSON-able description of what determines the order; a state of another order is refused.
    on_skipped: called with the (index, reason) of examples that could not be read.
    workers, prefetch: see `iterate`.
  """

  def __init__(self, batches: grain.MapDataset, order: dict[str, Any],
               on_skipped: Callable[[Skipped], None], workers: int, prefetch: int):
    self._batches, self._order, self._on_skipped = batches, dict(order), on_skipped
    self._workers, self._prefetch = workers, prefetch
    self._next = 0
    self._running = []
    # Threads and worker processes must end before the interpreter takes Grain apart.
    weakref.finalize(self, _stop, self._running)

  def __iter__(self) -> 'TrainIterator':
    return self

  def __next__(self) -> Batch:
    if not self._running:
      batches = self._batches[self._next:]
      self._running.append(iterate(batches, self._workers, self._prefetch))
    batch = self._load()
    self._next += 1
    self._on_skipped(batch.pop(SKIPPED))
    return batch

  def _load(self):
    try:
      return next(self._running[0])
    except UserError:
      raise
    except RuntimeError as error:
      if not self._workers:
        raise
      self.close()
      reason = (str(error).strip().splitlines() or [''])[0][:200]
      raise OSError(
          f'a process of data.workers={self._workers} ended ({reason}). Where the system stopped '
          'it for its memory, use fewer workers, a smaller data.prefetch, or threads alone: '
          "data.workers=0. A script of your own needs `if __name__ == '__main__':`") from error

  def get_state(self) -> dict[str, Any]:
    """Returns the JSON-able position: batches handed out, and what the order depends on."""
    return {'next_batch': self._next, **self._order}

  def set_state(self, state: dict[str, Any]) -> None:
    """Continues where `get_state` was taken; batches loaded ahead are dropped.

    Raises:
      UserError: the state belongs to another order of the data.
    """
    differing = [f'{key}: {state.get(key)} then, {value} now'
                 for key, value in self._order.items() if state.get(key) != value]
    if differing:
      raise UserError('the saved position belongs to another order of the data ('
                      f'{"; ".join(differing)}); resume with the same data, seed and batch size')
    self.close()
    self._next = int(state['next_batch'])

  def close(self) -> None:
    """Stops loading ahead. The iterator still works, and then starts loading again."""
    _stop(self._running)
