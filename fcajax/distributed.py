"""What several processes of one run do together.

Every function is a collective call if there are several processes: all of them have to make it, in
the same order. With one process nothing is sent.
"""
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar('T', bool, int, float)


def is_first() -> bool:
  """Returns True on the process that writes files and prints; not a collective call."""
  return jax.process_index() == 0


def same_everywhere(value: T) -> T:
  """Returns the first process's value."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils
  return type(value)(multihost_utils.broadcast_one_to_all(np.array(value)))


def largest(value: int) -> int:
  """Returns the largest value of all processes."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils
  return int(multihost_utils.process_allgather(np.array([value])).max())


def wait_for_all(name: str) -> None:
  """Returns once every process has come here; `name` says where."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils
    multihost_utils.sync_global_devices(name)


def gather_text(text: str) -> list[str]:
  """Returns the texts of all processes, in the processes' order."""
  if jax.process_count() == 1:
    return [text]
  from jax.experimental import multihost_utils
  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array([data.size]))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[:data.size] = data
  rows = multihost_utils.process_allgather(padded)
  return [bytes(row[:int(size)]).decode() for row, size in zip(rows, sizes.ravel())]


def gather(values: Sequence[Any]) -> list[Any]:
  """Returns the values of all processes as one list, in the processes' order.

  Args:
    values: JSON-able, such as the results of this process's examples. Floats stay exact.
  """
  if jax.process_count() == 1:
    return list(values)
  return [value for text in gather_text(json.dumps(list(values))) for value in json.loads(text)]


def fetch_all(value: jax.Array) -> np.ndarray:
  """Returns a global array as NumPy, also where this process holds only a part of it."""
  if value.is_fully_addressable or value.is_fully_replicated:
    return np.asarray(value)
  from jax.experimental import multihost_utils
  return np.asarray(multihost_utils.process_allgather(value, tiled=True))
