"""The training loop."""
import collections
import contextlib
import io
import pathlib
import time
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from fcajax import distributed, tasks
from fcajax.errors import TrainingDiverged
from fcajax.tasks.base import Collector, Data, Task
from fcajax.train import plan as plans
from fcajax.train import report, restore
from fcajax.train.engine import Engine
from fcajax.train.evaluate import History, evaluate
from fcajax.train.interrupt import StopRequest
from fcajax.train.plan import Plan
from fcajax.train.prefetch import Prefetcher
from fcajax.train.report import Reporter
from fcajax.train.train_state import TrainState
from fcajax.workdir import layout
from fcajax.workdir.checkpoints import Checkpoints

# Enough for the devices never to wait for the host; few enough for a stop to come soon and for the
# batches that wait on the devices to be few.
_STEPS_AHEAD = 3


def train(config: ConfigDict, directory: str | pathlib.Path, data: Data, *,
          model: nn.Module | None = None, task: type[Task] | None = None,
          resume_with_changes: bool = False, stream: io.TextIOBase | None = None) -> dict[str, Any]:
  """Trains a model, or continues where the work directory stopped.

  1. The config is checked; the directory is created and tried. It may not hold a run of another
     config.
  2. A finished run returns its summary.
  3. The state comes from the newest checkpoint (with the data's position), else from
     `config.init_from`, else from the seed.
  4. Steps run with donated buffers and metrics that add up on the devices; the host runs up to
     three steps ahead and waits for the newest only to write metrics, evaluate or save.
  5. An evaluation comes every `eval_every_epochs` and at the end; a checkpoint every
     `checkpoint.every_epochs` (or `every_steps`), after the best evaluation so far, at the end,
     when SIGTERM or Ctrl-C asks to stop (a pending evaluation is skipped and runs first after
     resuming), and when the data fails. Nothing is saved from a state after a loss or a gradient
     that was not finite.

  Args:
    config: see `configs/base/settings.py`.
    directory: the work directory.
    data: see `input_pipeline.create`.
    model: a Linen module in place of `config.model`.
    task: what the network is trained for, a class, in place of `config.task`.
    resume_with_changes: go on although the directory holds a run of another config.
    stream: where to print; None is standard output.

  Returns:
    The content of `summary.json`; for a run that a signal stopped, also 'stopped_by', its number.

  Raises:
    UserError: what the user gave cannot work.
    TrainingDiverged: a loss or gradient was not finite; the last checkpoint before it is kept.
  """
  task = task or tasks.get(config.task)
  plans.check_config(config, task, own_model=model is not None)
  plan = plans.make(config, directory, data, task, model)
  reporter = Reporter(plan, data, stream)
  summary, changes = layout.open_run(
      plan.directory, layout.plain(config), allow_changes=resume_with_changes)
  if summary:
    reporter.line(report.finished(plan.directory, summary, task))
    return summary
  if changes:
    reporter.line('the config has changed since this run began:\n' + '\n'.join(changes))
  with contextlib.ExitStack() as stack:
    stack.enter_context(layout.lock(plan.directory))
    return _train(stack, plan, data, reporter)


def _train(stack: contextlib.ExitStack, plan: Plan, data: Data, reporter: Reporter
           ) -> dict[str, Any]:
  """Restores, trains, evaluates, saves and reports, in the order of events."""
  kept = plan.config.checkpoint
  checkpoints = stack.enter_context(
      Checkpoints(plan.directory, keep=kept.keep, keep_best=kept.keep_best))
  iterator = stack.enter_context(contextlib.closing(data.train_iterator()))
  programs = plan.programs()
  state, step, history = restore.start(plan, programs, checkpoints, iterator, reporter.line)
  # An evaluation that was due when the run stopped here.
  pending = plan.is_final(step) or (
      step > 0 and plan.evaluation_due(step) and history.evaluated != step)
  reporter.open(stack, programs, step, evaluated_anew=pending)

  stop = stack.enter_context(StopRequest())
  run = _Run(plan, data, programs, checkpoints, reporter, history, stop, state, step)
  if pending:
    run.evaluate_pending()
  if not plan.is_final(step) and (stop.signum is None or jax.process_count() > 1):
    batches = stack.enter_context(contextlib.closing(Prefetcher(
        iterator, plan.strategy.place_batch, get_state=iterator.get_state)))
    _steps(run, batches)
  checkpoints.wait()

  done = plan.is_final(run.step) and run.evaluated is not None
  if not done:
    reporter.line(report.stopped(
        stop.name, run.step, plan.total_steps, saved=checkpoints.latest_step() is not None))
  summary = reporter.summarize(run.step, run.evaluated, history, done=done)
  if not done:
    return summary | {'stopped_by': stop.signum}
  reporter.draw(run.collector, plan.strategy.to_host(run.state.variables()), run.step)
  # A process that left earlier would take the first one with it.
  distributed.same_everywhere(0)
  reporter.finish(summary)
  return summary


def _steps(run: '_Run', batches: Prefetcher) -> None:
  """Trains until the end or a stop."""
  plan, first = run.plan, True
  while not plan.is_final(run.step):
    batch = run.next_batch(batches)
    if batch is None:
      return
    run.update(batch)
    log = first or plan.log_due(run.step)
    if log:
      run.write_metrics(batches.wait_seconds, first)
    best = False
    run.evaluated = None
    if plan.evaluation_due(run.step):
      if not run.evaluate_or_rescue():
        return
      best = run.is_best
    stopping = run.stop.agreed(log)
    if best or stopping or plan.save_due(run.step):
      if not log:
        run.write_metrics(batches.wait_seconds, first)
        log = True
      run.save()
    if log:
      run.start_interval(batches.wait_seconds)
      first = False
    if stopping:
      return


class _Run:
  """The state of a run between two steps, and what can be done with it.

  Attributes:
    state: on the devices.
    step: updates made.
    position: of the training data after this step, JSON text; None before the first step here.
    evaluated: metrics of the evaluation at this step, or None.
    is_best: whether that evaluation is the best so far.
    collector: of the newest evaluation.
  """

  def __init__(self, plan: Plan, data: Data, programs: Engine, checkpoints: Checkpoints,
               reporter: Reporter, history: History, stop: StopRequest, state: TrainState,
               step: int):
    self.plan, self.data, self.programs = plan, data, programs
    self.checkpoints, self.reporter, self.history, self.stop = checkpoints, reporter, history, stop
    self.state, self.step = state, step
    self.position: str | None = None
    self.evaluated: dict[str, float] | None = None
    self.is_best = False
    self.collector = Collector()
    self._sums = None
    self._running = collections.deque()

  def next_batch(self, batches: Prefetcher) -> Any:
    """Returns the next batch; None if the data failed because the run was asked to stop."""
    try:
      batch, self.position = batches.get(self._running[-1] if self._running else None)
    except Exception as error:
      self._rescue(error)
      if self.stop.signum is None:
        raise
      return None  # whoever asked to stop has ended the loader's processes as well
    return batch

  def update(self, batch: Any) -> None:
    """Starts one update on the devices, at most `_STEPS_AHEAD` ahead of what is done."""
    self.state, self._sums, done = self.programs.train(self.state, self._sums, batch)
    self._running.append(done)
    if len(self._running) > _STEPS_AHEAD:
      self._running.popleft().block_until_ready()
    self.step += 1
    self.reporter.progress.tick(self.step)
    self.reporter.meter.add(self.plan.config.batch_size)

  def write_metrics(self, waited: float, first: bool) -> None:
    """Waits for the devices, writes the metrics, and ends the run if they are not finite."""
    values = self.programs.fetch(self._sums)
    rate = float(self.plan.schedule(self.step - 1))
    not_finite = values.pop('not_finite')
    if not_finite is not None:
      self._diverged(not_finite, rate)
    if first:
      self.reporter.compiled(self.step, values, rate)
    else:
      self.reporter.training(self.step, values, rate, waited)

  def start_interval(self, waited: float) -> None:
    """Starts new averages, whose time leaves out what came after the step."""
    self._sums = None
    self.reporter.meter.start(waited)

  def _diverged(self, step: int, rate: float) -> None:
    self.checkpoints.wait()
    latest = self.checkpoints.latest_step()
    kept = (
        f'the checkpoint of step {latest} in {self.plan.directory} is kept' if latest is not None
        else 'no checkpoint had been saved')
    raise TrainingDiverged(step, (
        f'the loss or its gradient was not finite at step {step} (learning rate {rate:.3g}); '
        f'{kept}. Lower config.optimizer.learning_rate, lengthen its warmup_epochs or set '
        'clip_norm, and go on with --resume_with_changes'))

  def _evaluate(self) -> None:
    """Sets `evaluated`, unless a stop was asked for meanwhile."""
    started, compiled = time.perf_counter(), self.programs.compile_seconds
    self.collector = self.plan.task.collector(
        pictures=distributed.is_first() and self.plan.is_final(self.step))
    values = evaluate(self.programs, self.state.variables(), self.data, self.collector,
                      stopped=lambda: self.stop.signum is not None)
    if values is None:
      return
    self.evaluated = values
    self.is_best = self.history.add(
        self.plan.task.best, values, self.step, self.plan.epoch(self.step))
    seconds = time.perf_counter() - started - (self.programs.compile_seconds - compiled)
    self.reporter.evaluation(self.step, values, seconds=seconds, best=self.is_best)

  def evaluate_pending(self) -> None:
    """Makes up for the evaluation that was due when the run stopped at this step."""
    self._evaluate()
    if self.evaluated is not None and self.is_best and self.step:
      self.checkpoints.add_metrics(
          self.step, self.evaluated, self.plan.task.best.score(self.evaluated))

  def evaluate_or_rescue(self) -> bool:
    """Evaluates; returns False if the data failed because the run was asked to stop."""
    self.is_best = False
    try:
      self._evaluate()
    except Exception as error:
      self._rescue(error, finite=True)
      if self.stop.signum is None:
        raise
      return False
    return True

  def save(self) -> None:
    """Starts to write a checkpoint of this step."""
    self.history.skipped(self.data)
    score = None if self.evaluated is None else self.plan.task.best.score(self.evaluated)
    self.checkpoints.save(
        self.step, self.plan.strategy.state_to_save(self.state), iterator=self.position,
        run=vars(self.history), metadata=self.plan.metadata, metrics=self.evaluated, score=score)

  def _rescue(self, error: Exception, *, finite: bool = False) -> None:
    """Saves the state before an error ends the run, unless its metrics are not finite.

    Args:
      error: what ends the run.
      finite: whether the metrics up to this step are known to be finite.
    """
    if self.stop.signum is not None:
      self.reporter.line(f'while stopping: {type(error).__name__}: {error}')
    # Several processes save together, and the error may be one's alone.
    if self.position is None or jax.process_count() > 1:
      return
    if not finite and self.programs.fetch(self._sums).get('not_finite') is not None:
      return
    self.evaluated = None
    self.save()
    self.checkpoints.wait()
    if self.stop.signum is None:
      self.reporter.line(f'an error ends the run; a checkpoint of step {self.step} is saved, and '
                         'the same command goes on from it')
