"""What a run says while it works."""
import sys
import time


def duration(seconds):
  """'45s', '3m20s', '5h07m', '2d03h'."""
  seconds = max(0, round(seconds))
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  if seconds < 86400:
    return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
  return f'{seconds // 86400}d{seconds % 86400 // 3600:02d}h'


class Progress:
  """Prints lines; on a terminal the newest figures stay on one live line below them.

  Args:
    total_steps: of the run.
    steps_per_epoch: updates an epoch.
    every: without a terminal, a line every so many steps.
    stream: where to print; None is standard output.
    quiet: print nothing (processes other than the first).
  """

  def __init__(self, *, total_steps, steps_per_epoch, every, stream=None, quiet=False):
    self._stream = sys.stdout if stream is None else stream
    self._live = self._stream.isatty()
    self._total, self._per_epoch, self._every = total_steps, steps_per_epoch, every
    self._quiet = quiet
    self._figures = ''
    self._width = 0
    self._drawn = 0.0
    self._printed = None

  def line(self, text):
    """Prints a line for good, above the live line."""
    if self._quiet:
      return
    self._clear()
    print(text, file=self._stream, flush=True)

  def train(self, step, values, *, images_per_second, seconds_left, wait_fraction):
    """New training figures at `step`."""
    self._figures = (
        f'loss {values["loss"]:.4f}  accuracy {values["accuracy"]:.1%}  '
        f'{images_per_second:,.0f} images/s  {duration(seconds_left)} left  '
        f'data wait {wait_fraction:.0%}')
    if self._live:
      self._draw(step)
    elif self._printed is None or step - self._printed >= self._every or step == self._total:
      self._printed = step
      self.line(self._position(step) + self._figures)

  def tick(self, step):
    """A step was sent to the devices; moves the live line, at most five times a second."""
    if self._live and self._figures and time.monotonic() - self._drawn > 0.2:
      self._draw(step)

  def evaluation(self, step, values, *, seconds, best):
    """Figures of an evaluation."""
    self.line(
        f'{self._position(step)}evaluation: loss {values["loss"]:.4f}  '
        f'top-1 {values["accuracy"]:.2%}  top-5 {values["top5"]:.2%}  '
        f'in {duration(seconds)}{"  best so far" if best else ""}')

  def close(self):
    self._clear()

  def _position(self, step):
    return (f'step {step:>{len(str(self._total))}}/{self._total}  '
            f'epoch {step / self._per_epoch:.1f}/{self._total / self._per_epoch:.1f}  ')

  def _draw(self, step):
    if self._quiet:
      return
    text = self._position(step) + self._figures
    self._stream.write('\r' + text.ljust(self._width))
    self._stream.flush()
    self._width, self._drawn = len(text), time.monotonic()

  def _clear(self):
    if self._live and self._width:
      self._stream.write('\r' + ' ' * self._width + '\r')
      self._stream.flush()
      self._width = 0


class Meter:
  """Images, seconds and seconds without data: of the interval, and of the whole session."""

  def __init__(self):
    self.images = self.seconds = self.wait = 0.0
    self.rate = self.wait_fraction = 0.0
    self._started = None
    self._interval_images = 0

  def start(self, wait):
    self._started, self._wait = time.perf_counter(), wait

  def add(self, images):
    self._interval_images += images

  def stop(self, wait):
    """Ends an interval; the devices must have finished its work."""
    seconds = max(time.perf_counter() - self._started, 1e-9)
    waited = min(wait - self._wait, seconds)
    self.rate, self.wait_fraction = self._interval_images / seconds, waited / seconds
    self.images += self._interval_images
    self.seconds += seconds
    self.wait += waited
    self._interval_images = 0
