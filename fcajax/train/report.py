"""What a run says and writes for people: lines, metric rows, `summary.json`, pictures."""
import contextlib
import io
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax

from fcajax import distributed, files, trees
from fcajax.analysis import curves
from fcajax.tasks.base import Collector, Data, Metric, Task
from fcajax.train import optimizer
from fcajax.train.engine import Engine
from fcajax.train.evaluate import History
from fcajax.train.plan import Plan
from fcajax.train.progress import Meter, Progress, duration
from fcajax.workdir import layout, metrics_log

CURVES = 'learning_curves.png'


def finished(directory: str | pathlib.Path, summary: Mapping[str, Any],
             task: type[Task] | Task) -> str:
  """Returns what a second run in the work directory of a finished one says."""
  steps = ', '.join(filter(None, [f'{summary["steps"]} steps', task.best.text(summary)]))
  return f'the run in {directory} is finished: {steps}; nothing to do'


def stopped(name: str | None, step: int, total_steps: int, *, saved: bool) -> str:
  """Returns what a run says that a signal ended."""
  return f'stopped by {name} after step {step}/{total_steps}; ' + (
      'a checkpoint is saved, and the same command goes on from it' if saved
      else 'nothing was trained that could be saved')


class Reporter:
  """The lines, rows, summary and pictures of one run; only the first process writes any.

  Args:
    plan: of the run.
    data: its data set.
    stream: where to print; None is standard output.
  """

  def __init__(self, plan: Plan, data: Data, stream: io.TextIOBase | None = None):
    self._plan, self._data = plan, data
    self._first = distributed.is_first()
    self._writer = None
    self._started = time.perf_counter()
    self.meter = Meter()
    task = plan.task
    self.progress = Progress(
        total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch,
        every=plan.config.log_every_steps, train_metrics=task.train_metrics,
        eval_metrics=task.eval_metrics, examples=task.examples, stream=stream,
        quiet=not self._first)
    self.line = self.progress.line

  def open(self, stack: contextlib.ExitStack, programs: Engine, step: int, *,
           evaluated_anew: bool) -> None:
    """Writes what describes the run into the work directory and prints what it will do.

    Args:
      stack: closes the files.
      programs: of the run.
      step: where the run starts.
      evaluated_anew: whether it starts with an evaluation.

    Raises:
      UserError: the disk is too full, or `config.freeze` finds nothing or everything.
    """
    plan, shapes = self._plan, programs.state_shapes
    self._programs = programs
    self._parameters = trees.count(shapes.params)
    frozen = optimizer.frozen_parameters(shapes.params, plan.freeze)
    if self._first:
      size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
      layout.check_space(plan.directory, size, 2)
      files.write_json(plan.directory / layout.CONFIG_FILE, layout.plain(plan.config))
      files.write_json(plan.directory / layout.METADATA_FILE, plan.metadata)
      self._write_summary({'finished': False, 'step': step})
      self._writer = stack.enter_context(contextlib.closing(
          metrics_log.MetricWriter(plan.directory, step, evaluated_anew)))
    self.line(self._introduction(frozen))

  def _introduction(self, frozen: int) -> str:
    """Returns three lines: what is trained, for how long and on what, where the results go."""
    plan, data, config = self._plan, self._data, self._plan.config
    devices = plan.strategy.mesh.devices.flat
    return (
        f'{plan.metadata["model"]["name"]}: {self._parameters:,} parameters'
        f'{f" ({frozen:,} of them frozen)" if frozen else ""}, {data.num_train:,} training and '
        f'{data.num_evaluation:,} evaluation {plan.task.examples} {plan.task.describe_data()}\n'
        f'{plan.total_steps:,} steps of {config.batch_size} {plan.task.examples} '
        f'({plan.epoch(plan.total_steps):.1f} epochs), {config.dtype}, {config.parallelism} on '
        f'{len(devices)} x {devices[0].device_kind}\n'
        f'work directory {plan.directory}; compiling the first step')

  def compiled(self, step: int, values: Mapping[str, float], rate: float) -> None:
    """Writes the metrics of the first step, whose time is the compilation's."""
    self.meter = Meter()
    self._write(step, 'train', {**values, 'learning_rate': rate})
    self.line(f'compiled in {self._programs.compile_seconds:.1f}s')

  def training(self, step: int, values: Mapping[str, float], rate: float, waited: float) -> None:
    """Writes and prints training metrics.

    Args:
      step: the newest step; the devices have finished it.
      values: averages since the last call.
      rate: the learning rate of the step.
      waited: seconds that passed without data so far.
    """
    meter = self.meter
    meter.stop(waited)
    self._write(step, 'train', {
        **values, 'learning_rate': rate, 'images_per_second': meter.rate,
        'data_wait_fraction': meter.wait_fraction})
    left = (self._plan.total_steps - step) * self._plan.config.batch_size / meter.rate
    self.progress.train(
        step, values, images_per_second=meter.rate, seconds_left=left,
        wait_fraction=meter.wait_fraction)

  def evaluation(self, step: int, values: Mapping[str, float], *, seconds: float, best: bool
                 ) -> None:
    """Writes and prints the metrics of an evaluation."""
    self._write(step, 'evaluation', values)
    self.progress.evaluation(step, values, seconds=seconds, best=best)

  def _write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    if self._first:
      self._writer.write(step=step, epoch=self._plan.epoch(step), split=split, values=values)

  def summarize(self, step: int, evaluated: Mapping[str, float] | None, history: History, *,
                done: bool) -> dict[str, Any]:
    """Writes `summary.json` and returns its content.

    'images_per_second' and 'data_wait_fraction' are of the training steps of this session, without
    compilation, evaluations and checkpoints; 'seconds' is all of it.

    Args:
      step: where the run stands.
      evaluated: metrics of the evaluation at this step, if there was one.
      history: of the run.
      done: whether the run is finished.
    """
    plan, meter, skipped = self._plan, self.meter, history.skipped(self._data)
    summary = layout.plain({
        'finished': done,
        'task': plan.task.name,
        'model': plan.metadata['model']['name'],
        'parameters': self._parameters,
        'step': step,
        'steps': plan.total_steps,
        'epochs': round(plan.epoch(step), 4),
        **(evaluated or {}),
        'best': history.best,
        'images_per_second': round(meter.images / meter.seconds, 2) if meter.seconds else None,
        'data_wait_fraction': round(meter.wait / meter.seconds, 4) if meter.seconds else None,
        'compile_seconds': round(self._programs.compile_seconds, 2),
        'seconds': round(time.perf_counter() - self._started, 2),
        'batch_size': plan.config.batch_size,
        'devices': plan.strategy.device_count,
        'device_kind': plan.strategy.mesh.devices.flat[0].device_kind,
        'training_images': self._data.num_train,
        'evaluation_images': self._data.num_evaluation,
        'corrupt_files': {'count': len(skipped), 'names': skipped[:100]},
    })
    self._write_summary(summary)
    return summary

  def _write_summary(self, summary: Mapping[str, Any]) -> None:
    if self._first:
      files.write_json(self._plan.directory / layout.SUMMARY_FILE, summary)

  def draw(self, collector: Collector, variables: Any, step: int) -> None:
    """Writes the pictures that a finished run leaves, also to TensorBoard."""
    if not self._first:
      return
    plan = self._plan
    try:
      path = plan.directory / CURVES
      curves.draw_run(metrics_log.read_rows(plan.directory), path, _panels(plan.task.curves))
      self._add_pictures([path], step)
      self._add_pictures(collector.draw(plan.directory), step)
      self._add_pictures(
          plan.task.draw(plan.directory, plan.model, variables, self._data), step)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
      # The training is done, so a picture is not worth a failure.
      self.line(f'the pictures are not complete: {type(error).__name__}: {error}')

  def _add_pictures(self, paths: list[pathlib.Path], step: int) -> None:
    for path in paths:
      self._writer.image(step=step, tag=path.stem, path=path)

  def finish(self, summary: Mapping[str, Any]) -> None:
    """Prints the last line of a finished run."""
    metric, best = self._plan.task.best, summary['best']
    self.line(
        f'finished {summary["step"]} steps in {duration(summary["seconds"])}: '
        f'{metric.text(summary)}, best {best.get(metric.name, float("nan")):{metric.format}} at '
        f'step {best["step"]}')


def _panels(metrics: tuple[Metric, ...]) -> list[tuple[str, str, float]]:
  panels = []
  for metric in metrics:
    percent = metric.format.endswith('%')
    title = metric.title or metric.label or metric.name
    panels.append((metric.name, f'{title} (%)' if percent else title, 100 if percent else 1))
  return panels
