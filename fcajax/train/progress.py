"""What a run says while it works."""
import io
import sys
import time
from collections.abc import Mapping, Sequence

from fcajax.tasks.base import Metric


def duration(seconds: float) -> str:
  """Returns a length of time as '45s', '3m20s', '5h07m' or '2d03h'."""
  seconds = max(0, round(seconds))
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  if seconds < 86400:
    return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
  return f'{seconds // 86400}d{seconds % 86400 // 3600:02d}h'


class Progress:
  """Prints lines; on a terminal the newest metrics stay on one live line below them.

  Args:
    total_steps: of the run.
    steps_per_epoch: updates an epoch.
    every: without a terminal, a line every so many steps.
    train_metrics, eval_metrics: what the lines show, see `fcajax.tasks.base.Task`.
    examples: what examples are called.
    stream: where to print; None is standard output.
    quiet: print nothing (processes other than the first).
  """

  def __init__(self, *, total_steps: int, steps_per_epoch: float, every: int,
               train_metrics: Sequence[Metric] = (), eval_metrics: Sequence[Metric] = (),
               examples: str = 'images', stream: io.TextIOBase | None = None, quiet: bool = False):
    self._stream = sys.stdout if stream is None else stream
    self._live = self._stream.isatty()
    self._total, self._per_epoch, self._every = total_steps, steps_per_epoch, every
    self._train_metrics, self._eval_metrics = train_metrics, eval_metrics
    self._examples, self._quiet = examples, quiet
    self._newest = ''
    self._width = 0
    self._drawn = 0.0
    self._printed = None

  def line(self, text: str) -> None:
    """Prints a line for good, above the live line."""
    if self._quiet:
      return
    self._clear()
    print(text, file=self._stream, flush=True)

  def train(self, step: int, values: Mapping[str, float], *, images_per_second: float,
            seconds_left: float, wait_fraction: float) -> None:
    """Shows new training metrics at `step`."""
    self._newest = '  '.join([
        *_texts(self._train_metrics, values),
        f'{images_per_second:,.0f} {self._examples}/s', f'{duration(seconds_left)} left',
        f'data wait {wait_fraction:.0%}'])
    if self._live:
      self._draw(step)
    elif self._printed is None or step - self._printed >= self._every or step == self._total:
      self._printed = step
      self.line(self._position(step) + self._newest)

  def tick(self, step: int) -> None:
    """Moves the live line to a step that was sent to the devices, at most five times a second."""
    if self._live and self._newest and time.monotonic() - self._drawn > 0.2:
      self._draw(step)

  def evaluation(self, step: int, values: Mapping[str, float], *, seconds: float, best: bool
                 ) -> None:
    """Prints the metrics of an evaluation."""
    texts = [*_texts(self._eval_metrics, values), f'in {duration(seconds)}']
    self.line(f'{self._position(step)}evaluation: {"  ".join(texts)}'
              f'{"  best so far" if best else ""}')

  def _position(self, step):
    return (f'step {step:>{len(str(self._total))}}/{self._total}  '
            f'epoch {step / self._per_epoch:.1f}/{self._total / self._per_epoch:.1f}  ')

  def _draw(self, step):
    if self._quiet:
      return
    text = self._position(step) + self._newest
    self._stream.write('\r' + text.ljust(self._width))
    self._stream.flush()
    self._width, self._drawn = len(text), time.monotonic()

  def _clear(self):
    if self._live and self._width:
      self._stream.write('\r' + ' ' * self._width + '\r')
      self._stream.flush()
      self._width = 0


def _texts(metrics: Sequence[Metric], values: Mapping[str, float]) -> list[str]:
  return [text for metric in metrics if (text := metric.text(values))]


class Meter:
  """Counts images, seconds and seconds without data: of an interval, and of the whole session.

  Attributes:
    images, seconds, wait: of all intervals.
    rate: images a second of the last interval.
    wait_fraction: share of the last interval that passed without data.
  """

  def __init__(self) -> None:
    self.images = self.seconds = self.wait = 0.0
    self.rate = self.wait_fraction = 0.0
    self._started = None
    self._interval_images = 0

  def start(self, wait: float) -> None:
    """Starts an interval; `wait` counts the seconds without data so far."""
    self._started, self._wait = time.perf_counter(), wait

  def add(self, images: int) -> None:
    """Counts the images of a step."""
    self._interval_images += images

  def stop(self, wait: float) -> None:
    """Ends an interval; the devices must have finished its work."""
    seconds = max(time.perf_counter() - self._started, 1e-9)
    waited = min(wait - self._wait, seconds)
    self.rate, self.wait_fraction = self._interval_images / seconds, waited / seconds
    self.images += self._interval_images
    self.seconds += seconds
    self.wait += waited
    self._interval_images = 0
