"""Calls with values that the annotations exclude, to test the errors that users get for them."""
import contextlib

import jaxtyping


@contextlib.contextmanager
def unchecked():
  """Turns the check of annotated types off while it is open, as in a program outside the tests."""
  jaxtyping.config.update('jaxtyping_disable', True)
  try:
    yield
  finally:
    jaxtyping.config.update('jaxtyping_disable', False)
