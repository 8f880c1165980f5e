"""The training loop."""
import collections
import contextlib
import json
import pathlib
import time

import jax

from fcajax.train import (
  build,
  checkpoint,
  engine,
  optimizer,
  parallel,
  progress,
  report,
  samples,
  state,
  workdir,
  writers,
)
from fcajax.train.errors import TrainingDiverged, UserError
from fcajax.train.interrupt import StopRequest
from fcajax.train.prefetch import Prefetcher

# Enough for the devices never to wait for the host; few enough for a stop to come soon and for the
# batches that wait on the devices to be few.
_STEPS_AHEAD = 3


def train(config, directory, data, *, model=None, resume_with_changes=False, stream=None):
  """Trains a model, or continues where the work directory stopped.

  1. The config is checked; the directory is created and tried. It may not hold a run of another
     config.
  2. A finished run returns its summary.
  3. The state comes from the newest checkpoint (with the data's position), else from
     `config.init_from`, else from the seed.
  4. Steps run with donated buffers and figures that add up on the devices; the host runs up to
     three steps ahead and waits for the newest only where it writes figures, evaluates or saves.
  5. An evaluation comes every `eval_every_epochs` and at the end; a checkpoint every
     `checkpoint.every_epochs` (or `every_steps`), after the best evaluation so far, at the end,
     when SIGTERM or Ctrl-C asks to stop (an evaluation is then left, and made up for when the run
     goes on), and where the data fails. Nothing is saved from a state after a loss or a gradient
     that was not finite.

  Args:
    config: see `configs/common.py`.
    directory: the work directory.
    data: see `input_pipeline.create`.
    model: a Linen module in place of `config.model`.
    resume_with_changes: go on although the directory holds a run of another config.
    stream: where to print; None is standard output.

  Returns:
    The content of `summary.json`.

  Raises:
    UserError: what the user gave cannot work.
    TrainingDiverged: a loss or gradient was not finite; the last checkpoint before it is kept.
  """
  if model is None:
    build.check_config(config)
  run = _Run(config, pathlib.Path(directory), data, model, resume_with_changes, stream)
  if run.finished_summary is not None:
    return run.finished_summary
  with contextlib.ExitStack() as stack:
    return run.train(stack)


def _due(step, every):
  """Whether a multiple of `every` (not a whole number as a rule) lies in (step - 1, step]."""
  return int(step / every) > int((step - 1) / every)


class _Run:
  """One call of `train`."""

  def __init__(self, config, directory, data, model, resume_with_changes, stream):
    self.config, self.directory, self.data = config, directory, data
    self.first = jax.process_index() == 0
    self.strategy = parallel.create(
        config.parallelism, fsdp=config.fsdp, sync_batch_norm=config.sync_batch_norm)
    devices = self.strategy.device_count
    parallel.check_batch_size(
        'batch_size', config.batch_size, devices, config.optimizer.accumulate_steps)
    parallel.check_batch_size('eval_batch_size', config.eval_batch_size, devices)
    if data.num_train < config.batch_size:
      raise UserError(
          f'config.batch_size={config.batch_size} is more than the {data.num_train} training '
          'images; use a smaller batch')
    # The epochs follow each other without a gap, so an epoch is seldom a whole number of steps.
    self.steps_per_epoch = data.num_train / config.batch_size
    self.total_steps = build.total_steps(config, self.steps_per_epoch)
    self.eval_every = config.eval_every_epochs * self.steps_per_epoch
    self.save_every = (
        config.checkpoint.every_steps or config.checkpoint.every_epochs * self.steps_per_epoch)
    self.progress = progress.Progress(
        total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch,
        every=config.log_every_steps, stream=stream, quiet=not self.first)
    self.meter = progress.Meter()

    if self.first:
      workdir.prepare(directory)
    # On every process, so that none waits for one that refused.
    changes = workdir.check_owner(
        directory, workdir.plain(config), allow_changes=resume_with_changes)
    self.finished_summary = self._finished()
    if self.finished_summary is not None:
      return
    if changes:
      self.progress.line('the config has changed since this run began:\n' + '\n'.join(changes))
    self._build(model)

  def _finished(self):
    config = workdir.plain(self.config)
    # The first process writes in the directory, so it decides for all.
    if not parallel.same_everywhere(
        bool(self.first and workdir.finished_summary(self.directory, config))):
      return None
    summary = workdir.read_summary(self.directory)
    self.progress.line(report.finished(self.directory, summary))
    return summary

  def _build(self, model):
    from fcajax.preprocess import device_transform
    config, data = self.config, self.data
    self.metadata = workdir.plain({
        'model': build.model_description(config, model, data.num_classes),
        'class_names': list(data.class_names),
        'preprocessing': build.preprocessing_description(data.preprocessing),
    })
    if model is None:
      model = build.create_model(config, data.num_classes)
    schedule = optimizer.make_schedule(
        config.optimizer, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps,
        batch_size=config.batch_size)
    self.model = build.adapt_model(model, config, self.strategy, data.num_classes)
    self.transform = device_transform(data.preprocessing, config.dtype)
    self.engine = engine.Engine(
        self.model, self.strategy, optimizer.make_optimizer(config.optimizer, config.freeze),
        schedule, transform=self.transform,
        image_shape=(*data.preprocessing.shape, 3),
        total_steps=self.total_steps, seed=config.seed, ema_decay=config.ema_decay,
        augment=data.device_augment, label_smoothing=config.label_smoothing,
        accumulate_steps=config.optimizer.accumulate_steps, freeze=config.freeze)
    self.parameters = state.parameter_count(self.engine.state_shapes.params)
    self.frozen = build.frozen_parameters(self.engine.state_shapes.params, config.freeze)

  def _restore_or_initialize(self, checkpoints, iterator):
    """Returns (state, step); sets the figures of the run so far and the data's position."""
    self.figures = {'best': None, 'evaluated': None, 'corrupt': []}
    latest = checkpoints.latest_step()
    if latest is not None:
      workdir.check_classes(
          self.directory, checkpoints.class_names(latest), self.metadata['class_names'])
      values, position, earlier = checkpoints.restore(latest, self.engine.state_shapes)
      self.figures |= earlier
      iterator.set_state(json.loads(position))
      self.progress.line(f'resuming {self.directory} after step {latest}/{self.total_steps}')
      return self.strategy.place_state(values), latest
    current = self.engine.initialize()
    if self.config.init_from:
      current = self._start_from(current, self.config.init_from)
    return current, 0

  def _start_from(self, current, source):
    host = self.strategy.to_host(current)
    merged, kept = build.start_weights(
        {'params': host.params, 'batch_stats': host.batch_stats}, source)
    self.progress.line(
        f'weights from {source}' + (f'; new: {", ".join(kept)}' if kept else ''))
    params = merged['params']
    host = host.replace(
        params=params, batch_stats=merged.get('batch_stats', {}),
        ema=None if host.ema is None else params)
    return self.strategy.place_state(host)

  def train(self, stack):
    config, started = self.config, time.perf_counter()
    stack.enter_context(workdir.lock(self.directory))
    checkpoints = stack.enter_context(checkpoint.Checkpoints(
        self.directory, keep=config.checkpoint.keep, keep_best=config.checkpoint.keep_best))
    self.checkpoints = checkpoints
    iterator = stack.enter_context(contextlib.closing(self.data.train_iterator()))
    current, step = self._restore_or_initialize(checkpoints, iterator)
    final = step >= self.total_steps
    # What was left when the run stopped here.
    owed = final or (
        step > 0 and _due(step, self.eval_every) and self.figures['evaluated'] != step)
    if self.first:
      size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.engine.state_shapes))
      workdir.check_space(self.directory, size, 2)
      workdir.write_json(self.directory / workdir.CONFIG_FILE, workdir.plain(config))
      workdir.write_json(self.directory / checkpoint.METADATA_FILE, self.metadata)
      workdir.write_json(
          self.directory / workdir.SUMMARY_FILE, {'finished': False, 'step': step})
      self.writer = stack.enter_context(
          contextlib.closing(writers.MetricWriter(self.directory, step, owed)))
    self.progress.line(self._introduction())

    evaluated, stop = None, stack.enter_context(StopRequest())
    if owed:
      evaluated = self._evaluate(current, step, stop)
      if evaluated is not None and self._is_best(evaluated, step) and step:
        checkpoints.add_metrics(step, evaluated)
    if not final and (stop.signum is None or jax.process_count() > 1):
      current, step, evaluated = self._steps(stack, stop, current, step, iterator)
    if step < self.total_steps or evaluated is None:
      self.progress.line(report.stopped(
          stop.name, step, self.total_steps, saved=checkpoints.latest_step() is not None))
      summary = self._summary(step, evaluated, started) | {'finished': False}
      self._write_summary(summary)
      return summary | {'stopped_by': stop.signum}
    checkpoints.wait()
    return self._finish(current, step, evaluated, started)

  def _steps(self, stack, stop, current, step, iterator):
    """Runs until the end or a stop; returns (state, step, figures of the evaluation there)."""
    batches = stack.enter_context(contextlib.closing(Prefetcher(
        iterator, self.strategy.place_batch, get_state=iterator.get_state)))
    totals = self.engine.new_train_totals()
    first, evaluated, position = True, None, None
    running = collections.deque()
    while step < self.total_steps:
      try:
        batch, position = batches.get(running[-1] if running else None)
      except Exception as error:
        self._rescue(error, stop, step, current, position, totals)
        if stop.signum is None:
          raise
        break  # whoever asked to stop has ended the loader's processes as well
      current, totals, done = self.engine.train(current, totals, batch)
      running.append(done)
      if len(running) > _STEPS_AHEAD:
        running.popleft().block_until_ready()
      step += 1
      self.progress.tick(step)
      self.meter.add(self.config.batch_size)
      final = step == self.total_steps
      evaluation_due = final or _due(step, self.eval_every)
      written = first or evaluation_due or step % self.config.log_every_steps == 0
      if written:
        self._write_training(step, totals, batches, first)
      evaluated = None
      if evaluation_due:
        try:
          evaluated = self._evaluate(current, step, stop)
        except Exception as error:
          self._rescue(error, stop, step, current, position)
          if stop.signum is None:
            raise
          break
      best = evaluated is not None and self._is_best(evaluated, step)
      stopping = stop.agreed(written)
      if final or best or stopping or _due(step, self.save_every):
        if not written:
          self._write_training(step, totals, batches, first)
          written = True
        self._save(step, current, position, evaluated)
      if written:
        totals = self.engine.new_train_totals()
        self.meter.start(batches.wait_seconds)
        first = False
      if stopping:
        break
    self.checkpoints.wait()
    return current, step, evaluated

  def _rescue(self, error, stop, step, current, position, totals=None):
    """Saves the state before an error ends the run, unless its figures are not finite."""
    if stop.signum is not None:
      self.progress.line(f'while stopping: {type(error).__name__}: {error}')
    # Several processes save together, and the error may be one's alone.
    if position is None or jax.process_count() > 1 or (
        totals is not None and self.engine.fetch(totals)['not_finite'] is not None):
      return
    self._save(step, current, position, None)
    self.checkpoints.wait()
    if stop.signum is None:
      self.progress.line(f'an error ends the run; a checkpoint of step {step} is saved, and the '
                         'same command goes on from it')

  def _write_training(self, step, totals, batches, first):
    values = self.engine.fetch(totals)
    if first:
      # The first step's time is the compilation's.
      self.meter = progress.Meter()
    else:
      self.meter.stop(batches.wait_seconds)
    bad = values.pop('not_finite')
    rate = float(self.engine.schedule(step - 1))
    if bad is not None:
      self._diverged(bad, rate)
    if not self.first:
      return
    epoch = step / self.steps_per_epoch
    values |= {'learning_rate': rate}
    if not first:
      values |= {
          'images_per_second': self.meter.rate, 'data_wait_fraction': self.meter.wait_fraction}
    self.writer.write(step=step, epoch=epoch, split='train', values=values)
    if first:
      self.progress.line(f'compiled in {self.engine.compile_seconds:.1f}s')
      return
    seconds_left = (self.total_steps - step) * self.config.batch_size / self.meter.rate
    self.progress.train(
        step, values, images_per_second=self.meter.rate, seconds_left=seconds_left,
        wait_fraction=self.meter.wait_fraction)

  def _diverged(self, step, rate):
    self.checkpoints.wait()
    latest = self.checkpoints.latest_step()
    kept = (
        f'the checkpoint of step {latest} in {self.directory} is kept' if latest is not None
        else 'no checkpoint had been saved')
    raise TrainingDiverged(step, (
        f'the loss or its gradient was not finite at step {step} (learning rate {rate:.3g}); '
        f'{kept}. Lower config.optimizer.learning_rate, lengthen its warmup_epochs or set '
        'clip_norm, and go on with --resume_with_changes'))

  def _evaluate(self, current, step, stop):
    """The figures over the whole evaluation set, or None where a stop was asked for meanwhile."""
    start = time.perf_counter()
    compiled = self.engine.compile_seconds
    self.samples = samples.Samples(self.data, collect=self.first and step >= self.total_steps)
    variables = current.variables()
    totals = self.engine.new_eval_totals()
    with contextlib.closing(Prefetcher(
        self.samples.watch(self.data.evaluation_batches()), self.strategy.place_batch)) as batches:
      for batch, _ in batches:
        totals, rows = self.engine.evaluate(variables, totals, batch)
        self.samples.add(rows, self.strategy)
        if stop.signum is not None and jax.process_count() == 1:
          return None
    values = self.engine.fetch(totals)
    seconds = time.perf_counter() - start - (self.engine.compile_seconds - compiled)
    best = self.figures['best'] is None or values['accuracy'] >= self.figures['best']['accuracy']
    if self.first:
      self.writer.write(
          step=step, epoch=step / self.steps_per_epoch, split='evaluation', values=values)
    self.progress.evaluation(step, values, seconds=seconds, best=best)
    self.figures['evaluated'] = step
    return values

  def _is_best(self, values, step):
    best = self.figures['best']
    if best is not None and values['accuracy'] < best['accuracy']:
      return False
    self.figures['best'] = {
        'step': step, 'epoch': round(step / self.steps_per_epoch, 4), **values}
    return True

  def _save(self, step, current, position, evaluated):
    self.figures['corrupt'] = self._corrupt_files()
    self.checkpoints.save(
        step, self.strategy.state_to_save(current), iterator=position, run=dict(self.figures),
        metadata=self.metadata, metrics=evaluated)

  def _corrupt_files(self):
    """Names of the images skipped in this session and in those before it."""
    return sorted({*self.figures['corrupt'], *self.data.corrupt_files()})

  def _introduction(self):
    return report.introduction(
        self.metadata, self.data, self.config, self.strategy, parameters=self.parameters,
        frozen=self.frozen, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch,
        directory=self.directory)

  def _summary(self, step, evaluated, started):
    return report.summary(
        self.metadata, self.data, self.config, self.strategy, parameters=self.parameters,
        total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch, step=step,
        evaluated=evaluated, best=self.figures['best'], corrupt=self._corrupt_files(),
        meter=self.meter,
        compile_seconds=self.engine.compile_seconds, seconds=time.perf_counter() - started)

  def _finish(self, current, step, evaluated, started):
    summary = self._summary(step, evaluated, started)
    self._write_summary(summary)
    gated = getattr(self.model, 'gate', False)
    variables = self.strategy.to_host(current.variables()) if gated else None
    try:
      if self.first:
        report.draw(self.directory, self.writer, self.samples, step)
        if gated:
          report.draw_gate(self.directory, self.model, variables, self.data, self.transform)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
      # The training is done, so a picture is not worth a failure.
      self.progress.line(f'the pictures are not complete: {error}')
    # A process that left earlier would take the first one with it.
    parallel.same_everywhere(0)
    self.progress.line(
        f'finished {step} steps in {progress.duration(summary["seconds"])}: top-1 '
        f'{summary["accuracy"]:.2%}, best {summary["best"]["accuracy"]:.2%} at step '
        f'{summary["best"]["step"]}')
    return summary

  def _write_summary(self, summary):
    if self.first:
      workdir.write_json(self.directory / workdir.SUMMARY_FILE, summary)
