"""Evaluations of a run, and what it remembers of them."""
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from fcajax.tasks.base import Batch, Collector, Data, Metric
from fcajax.train.engine import Engine
from fcajax.train.prefetch import Prefetcher


def evaluate(programs: Engine, variables: Any, data: Data, collector: Collector,
             stopped: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
  """Evaluates a network on the whole evaluation set; all processes call it together.

  Args:
    programs: of the run.
    variables: of the network, on the devices.
    data: the data set.
    collector: of `Task.collector`; takes what it wants of every batch.
    stopped: asked after every batch whether to give up, if there is one process.

  Returns:
    The metrics, or None if it was given up.
  """
  sums, kept = None, []

  def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
      kept.append(collector.keep(batch))
      yield batch

  strategy = programs.strategy
  with contextlib.closing(Prefetcher(
      watched(data.evaluation_batches()), strategy.place_batch)) as batches:
    for batch, _ in batches:
      sums, rows = programs.evaluate(variables, sums, batch)
      wanted = kept.pop(0)
      if wanted is not None:
        collector.add(wanted, strategy.local_rows(rows))
      if jax.process_count() == 1 and stopped():
        return None
  return collector.metrics(programs.fetch(sums))


@dataclasses.dataclass
class History:
  """What a run remembers besides its state; stored in every checkpoint.

  Attributes:
    best: step, epoch and metrics of the best evaluation so far, or None.
    evaluated: the step of the newest evaluation, or None.
    corrupt: names of the files that were skipped in this session and in those before it.
  """

  best: dict[str, Any] | None = None
  evaluated: int | None = None
  corrupt: list[str] = dataclasses.field(default_factory=list)

  def is_best(self, metric: Metric, values: dict[str, float]) -> bool:
    """Returns True if no evaluation so far is better; the later one of equals is the best."""
    return self.best is None or metric.score(values) >= metric.score(self.best)

  def add(self, metric: Metric, values: dict[str, float], step: int, epoch: float) -> bool:
    """Adds an evaluation; returns True if it is the best so far."""
    self.evaluated = step
    best = self.is_best(metric, values)
    if best:
      self.best = {'step': step, 'epoch': round(epoch, 4), **values}
    return best

  def skipped(self, data: Data) -> list[str]:
    """Returns and remembers the names of all files that were skipped so far, sorted."""
    self.corrupt = sorted({*self.corrupt, *data.corrupt_files()})
    return self.corrupt
