"""SIGTERM and Ctrl-C as a request that the loop honours between two steps."""
import signal
import threading

import jax

from fcajax import distributed


class StopRequest:
  """Context manager: the first SIGTERM or SIGINT is remembered, a second Ctrl-C interrupts.

  Attributes:
    name: 'SIGTERM' or 'SIGINT' once one has come, else None.
    signum: its number, else None.
  """

  def __init__(self) -> None:
    self.signum: int | None = None
    self._previous = {}

  @property
  def name(self) -> str | None:
    return None if self.signum is None else signal.Signals(self.signum).name

  def agreed(self, together: bool) -> bool:
    """Returns True if the run has to stop now; several processes stop if one of them was asked to.

    Args:
      together: whether all processes make this call at this step.
    """
    if jax.process_count() == 1:
      return self.signum is not None
    if not together:
      return False
    self.signum = distributed.largest(self.signum or 0) or None
    return self.signum is not None

  def __enter__(self) -> 'StopRequest':
    # Python delivers signals to the main thread alone; elsewhere the caller's handling stays.
    if threading.current_thread() is threading.main_thread():
      for signum in (signal.SIGTERM, signal.SIGINT):
        self._previous[signum] = signal.signal(signum, self._handle)
    return self

  def __exit__(self, *unused: object) -> None:
    for signum, handler in self._previous.items():
      signal.signal(signum, handler)

  def _handle(self, signum, frame):
    del frame
    if self.signum is not None and signum == signal.SIGINT:
      raise KeyboardInterrupt
    self.signum = signum
