"""Errors that a user can act on: the command line prints them as one line, without a traceback."""
import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any


class UserError(ValueError):
  """A value or a file that the user gave cannot be used; the message says what to do."""


class NotFoundError(UserError, FileNotFoundError):
  """A file or a folder that the user named does not exist."""


class TrainingDiverged(UserError, FloatingPointError):
  """A loss or a gradient was not finite.

  Attributes:
    step: the first step (counted from 1) whose loss or gradient was not finite.
  """

  def __init__(self, step: int, message: str):
    super().__init__(message)
    self.step = step


def near_matches(name: object, names: Iterable[str], limit: int = 3) -> list[str]:
  """Returns the `names` that are spelled most like `name`, best first; [] if none is close."""
  return difflib.get_close_matches(str(name), sorted(names), n=limit, cutoff=0.5)


def did_you_mean(name: object, names: Iterable[str], limit: int = 3) -> str:
  """Returns "did you mean 'a' or 'b'?", or "it is one of a, b, c" if no name is close."""
  names = sorted(names)
  close = near_matches(name, names, limit)
  if close:
    return f'did you mean {" or ".join(repr(match) for match in close)}?'
  return f'it is one of {", ".join(names)}'


@contextlib.contextmanager
def reading(path: Any) -> Iterator[None]:
  """Re-raises an `OSError` of the body as a `UserError` that names the file that was read."""
  with _as_user_error('read', path):
    yield


@contextlib.contextmanager
def writing(path: Any) -> Iterator[None]:
  """Re-raises an `OSError` of the body as a `UserError` that names the file that was written."""
  with _as_user_error('write', path):
    yield


@contextlib.contextmanager
def _as_user_error(action: str, path: Any) -> Iterator[None]:
  try:
    yield
  except UserError:
    raise
  except OSError as error:
    raise UserError(f"cannot {action} '{path}': {error.strerror or error}") from error
