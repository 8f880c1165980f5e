"""What a run will do, decided before it starts: checks, steps, intervals, network, metadata."""
import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from fcajax import tasks
from fcajax.errors import UserError
from fcajax.tasks.base import Data, Task
from fcajax.train import optimizer, parallel
from fcajax.train.engine import Engine
from fcajax.workdir import layout

DTYPES = ('float32', 'bfloat16')

# (keys, what their values must be, the test).
_RANGES = (
    (('seed', 'num_steps', 'num_epochs', 'checkpoint.every_steps', 'optimizer.learning_rate',
      'optimizer.learning_rate_batch', 'optimizer.weight_decay', 'optimizer.clip_norm',
      'optimizer.warmup_epochs'), 'at least 0', lambda value: value >= 0),
    (('eval_every_epochs', 'checkpoint.every_epochs', 'optimizer.decay_factor'), 'above 0',
     lambda value: value > 0),
    (('batch_size', 'eval_batch_size', 'log_every_steps', 'checkpoint.keep',
      'optimizer.accumulate_steps'), 'at least 1', lambda value: value >= 1),
    (('ema_decay', 'label_smoothing', 'optimizer.momentum', 'optimizer.beta1', 'optimizer.beta2'),
     'at least 0 and below 1', lambda value: 0 <= value < 1))


def check_config(config: ConfigDict, task: type[Task] | None = None, *,
                 own_model: bool = False) -> None:
  """Checks what can be checked before any data or device is touched.

  Args:
    config: the run's config.
    task: None takes that of `config.task`.
    own_model: whether a module of the user's own replaces `config.model`.

  Raises:
    UserError, ValueError: a value that cannot work, with the allowed ones.
  """
  if config.dtype not in DTYPES:
    raise UserError(f'config.dtype={config.dtype!r}; use one of {DTYPES}')
  if config.parallelism not in parallel.NAMES:
    raise UserError(f'config.parallelism={config.parallelism!r}; use one of {parallel.NAMES}')
  for keys, allowed, test in _RANGES:
    for key in keys:
      value = _value(config, key)
      if not (isinstance(value, int | float) and math.isfinite(value) and test(value)):
        raise UserError(f'config.{key}={value} must be {allowed}')
  if not config.num_steps and not config.num_epochs:
    raise UserError('set config.num_epochs or config.num_steps above 0')
  optimizer.make_optimizer(config.optimizer, config.freeze)
  optimizer.frozen_mask({}, config.freeze)
  optimizer.check_schedule(config.optimizer)
  task = task or tasks.get(config.task)
  if not own_model:
    task.check_config(config)


def _value(config: Any, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def fitting_batch_size(config: ConfigDict, num_train: int, devices: int) -> int:
  """Returns the batch size for a training set that may be smaller than `config.batch_size`.

  It is the largest that the set fills and that divides over devices and accumulation slices;
  `config.batch_size` if there is none, or if the set is large enough.
  """
  parts = devices * config.optimizer.accumulate_steps
  if num_train >= config.batch_size:
    return config.batch_size
  return num_train // parts * parts or config.batch_size


def check_enough_data(config: ConfigDict, num_train: int) -> None:
  """Raises UserError if the training set is smaller than a batch."""
  if num_train < config.batch_size:
    raise UserError(
        f'config.batch_size={config.batch_size} is more than the {num_train} training images; use '
        'a smaller batch, or more data')


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run will do.

  Attributes:
    config: its config.
    directory: the work directory.
    task: what the network is trained for.
    model: the network with the run's dtype and batch-norm axis.
    strategy: how the steps run on the devices.
    metadata: content of `metadata.json`.
    schedule: step -> learning rate.
    steps_per_epoch: updates an epoch, seldom a whole number: epochs follow each other without a
      gap.
    total_steps: updates of the whole run.
    evaluation_interval: updates between evaluations; may be fractional.
    save_interval: updates between checkpoints; may be fractional.
  """

  config: ConfigDict
  directory: pathlib.Path
  task: Task
  model: nn.Module
  strategy: parallel.ShardMap
  metadata: dict[str, Any]
  schedule: Callable
  steps_per_epoch: float
  total_steps: int
  evaluation_interval: float
  save_interval: float

  def epoch(self, step: int) -> float:
    """Returns how many epochs `step` updates are."""
    return step / self.steps_per_epoch

  def is_final(self, step: int) -> bool:
    """Returns True if the run ends at this step, or ended before it."""
    return step >= self.total_steps

  def evaluation_due(self, step: int) -> bool:
    """Returns True if an evaluation comes after this step."""
    return self.is_final(step) or ends(self.evaluation_interval, step)

  def save_due(self, step: int) -> bool:
    """Returns True if a checkpoint is saved after this step, whatever its evaluation says."""
    return self.is_final(step) or ends(self.save_interval, step)

  def log_due(self, step: int) -> bool:
    """Returns True if metrics are written after this step."""
    return self.evaluation_due(step) or step % self.config.log_every_steps == 0

  @property
  def freeze(self) -> str:
    """The regular expression of the parameters that are not trained."""
    return self.task.freeze(self.config, self.model)

  def programs(self) -> Engine:
    """Returns the run's programs; they are compiled when they are first called."""
    config = self.config
    return Engine(
        self.model, self.task, self.strategy,
        optimizer.make_optimizer(config.optimizer, self.freeze), self.schedule,
        total_steps=self.total_steps, seed=config.seed, ema_decay=config.ema_decay,
        accumulate_steps=config.optimizer.accumulate_steps, freeze=self.freeze)


def ends(interval: float, step: int) -> bool:
  """Returns True if an interval (in steps, may be fractional) ends at this step."""
  return int(step / interval) > int((step - 1) / interval)


def make(config: ConfigDict, directory: str | pathlib.Path, data: Data, task: type[Task],
         model: nn.Module | None = None) -> Plan:
  """Decides what a run will do.

  Args:
    config: the run's config, checked.
    directory: the work directory.
    data: the data set.
    task: what the network is trained for.
    model: a module of the user's own in place of `config.model`.

  Raises:
    UserError: config, devices and data do not fit each other.
  """
  strategy = parallel.create(
      config.parallelism, fsdp=config.fsdp, sync_batch_norm=config.sync_batch_norm)
  devices = strategy.device_count
  parallel.check_batch_size(
      'batch_size', config.batch_size, devices, config.optimizer.accumulate_steps)
  parallel.check_batch_size('eval_batch_size', config.eval_batch_size, devices)
  check_enough_data(config, data.num_train)
  steps_per_epoch = data.num_train / config.batch_size
  total_steps = config.num_steps or max(1, round(config.num_epochs * steps_per_epoch))
  of_run = task(config, data)
  network = of_run.create_model(config) if model is None else model
  return Plan(
      config=config,
      directory=pathlib.Path(directory),
      task=of_run,
      model=of_run.adapt_model(network, config, strategy.norm_axis),
      strategy=strategy,
      metadata=layout.plain(of_run.metadata(config, model)),
      schedule=optimizer.make_schedule(
          config.optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps,
          batch_size=config.batch_size),
      steps_per_epoch=steps_per_epoch,
      total_steps=total_steps,
      evaluation_interval=config.eval_every_epochs * steps_per_epoch,
      save_interval=(
          config.checkpoint.every_steps or config.checkpoint.every_epochs * steps_per_epoch))
