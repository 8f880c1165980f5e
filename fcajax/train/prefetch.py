"""Batches on their way to the device while it computes."""
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

_END = object()
_POLL_SECONDS = 0.002


class Prefetcher:
  """Places batches on the devices from a thread, a few ahead of the step.

  Iterating gives (batch on the devices, state): `state` is where the data iterator stood right
  after this batch, as JSON text, so that a checkpoint continues with the next batch and not with
  the ones that were read ahead. An error of the data is raised where its batch would have come.

  Args:
    iterator: yields batches of NumPy arrays.
    place: puts a batch on the devices.
    get_state: returns the iterator's JSON-able state, or None.
    depth: batches ready on the device.
  """

  def __init__(self, iterator: Iterable[Any], place: Callable[[Any], Any], *,
               get_state: Callable[[], Any] | None = None, depth: int = 2):
    self._queue = queue.Queue(maxsize=depth)
    self._stop = threading.Event()
    self.wait_seconds = 0.0
    self._thread = threading.Thread(
        target=self._run, args=(iterator, place, get_state), name='prefetch', daemon=True)
    self._thread.start()

  def _run(self, iterator, place, get_state):
    try:
      for batch in iterator:
        state = json.dumps(get_state()) if get_state is not None else None
        if not self._put((place(batch), state)):
          return
      self._put(_END)
    except Exception as error:
      self._put(error)

  def _put(self, item):
    while not self._stop.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def __iter__(self) -> 'Prefetcher':
    return self

  def __next__(self) -> tuple[Any, str | None]:
    return self.get()

  def get(self, busy: Any = None) -> tuple[Any, str | None]:
    """Returns the next (batch, state).

    Args:
      busy: an output of the last step. Time counts as waiting for data only once that output is
        ready, so that a host that runs ahead of its devices counts nothing.
    """
    while True:
      start = time.perf_counter()
      idle = busy is None or busy.is_ready()
      try:
        item = self._queue.get(timeout=None if idle and busy is None else _POLL_SECONDS)
      except queue.Empty:
        item = None
      if idle:
        self.wait_seconds += time.perf_counter() - start
      if item is not None:
        break
    if item is _END:
      raise StopIteration
    if isinstance(item, Exception):
      raise item
    return item

  def close(self) -> None:
    """Ends the thread; batches read ahead are dropped."""
    self._stop.set()
    while self._thread.is_alive():
      try:
        self._queue.get_nowait()
      except queue.Empty:
        self._thread.join(timeout=0.05)
