"""Errors that a user can act on; `train.py` prints them without a traceback."""


class UserError(ValueError):
  """A value or a file that the user gave cannot be used; the message names the way out."""


class TrainingDiverged(FloatingPointError):
  """A loss or a gradient was not finite.

  Attributes:
    step: the first step (counted from 1) whose loss or gradient was not finite.
  """

  def __init__(self, step, message):
    super().__init__(message)
    self.step = step
