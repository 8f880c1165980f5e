"""From the config of a search to its parts: network, fine-tuning, base network, protocol."""
import pathlib
from typing import Any, TextIO

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcajax.errors import NotFoundError
from fcajax.layers.attention import attention_fields
from fcajax.models.registry import create_model
from fcajax.ops.dct import GRID
from fcajax.search.fine_tuning import FineTuning
from fcajax.search.settings import SearchSettings
from fcajax.tasks.base import Task
from fcajax.tasks.network import model_overrides
from fcajax.train import loop, optimizer
from fcajax.weights.merging import load_weights
from fcajax.workdir import layout as workdir


def searched_model(config: Any, settings: SearchSettings, task: Task) -> nn.Module:
  """Creates the network whose frequencies are searched.

  Its own frequency is a placeholder: every call gets the filters from outside.
  """
  overrides = model_overrides(config)
  # One frequency always fits, so that the model can be initialised whatever its channels.
  overrides |= {'frequencies': ((0, 0),)}
  if tuple(settings.grid) != GRID:
    overrides['grid'] = tuple(settings.grid)
  model = create_model(config.model.name, **task.model_arguments(), **overrides)
  return model.clone(dtype=jnp.dtype(config.dtype)) if config.dtype != 'float32' else model


def sample_input(task: Task) -> jax.ShapeDtypeStruct:
  """Returns the shape and dtype of one input of the network, `[1, H, W, C]`."""
  batch = jax.eval_shape(lambda batch: task.prepare(None, batch, False), task.sample_batch())
  return task.arguments(batch, False)[0]


def make_fine_tuning(
    config: Any, settings: SearchSettings, model: nn.Module, task: Task,
    data: Any) -> FineTuning:
  """Builds what every candidate goes through: optimiser, schedule, steps."""
  steps_per_epoch = data.num_train // config.batch_size
  steps = settings.num_steps or max(1, round(settings.num_epochs * steps_per_epoch))
  rates = config.optimizer.copy_and_resolve_references()
  rates.learning_rate, rates.schedule = settings.learning_rate, settings.schedule
  rates.warmup_epochs = 0
  return FineTuning(
      model=model, task=task, optimizer=optimizer.make_optimizer(rates, config.freeze),
      schedule=optimizer.make_schedule(
          rates, steps_per_epoch=steps_per_epoch, total_steps=steps,
          batch_size=config.batch_size),
      steps=steps, accumulate_steps=config.optimizer.accumulate_steps, freeze=config.freeze,
      batching=settings.batching)


def base_config(config: Any) -> Any:
  """Returns the config that trains the same network without attention."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for key in attention_fields('fca'):
      if key in config.model:
        config.model[key] = None
    config.model.update(attention='none')
    del config.search
  return config


def check_base(settings: SearchSettings) -> None:
  """Raises NotFoundError if `config.search.base` names a file that does not exist."""
  if settings.base and not pathlib.Path(settings.base).exists():
    raise NotFoundError(
        f"config.search.base='{settings.base}' does not exist; give a work directory or a "
        ".safetensors file of the network without attention, or '' to train it")


def train_base(config: Any, directory: pathlib.Path, data: Any, stream: TextIO | None) -> dict:
  """Trains the base network in `directory`, or finishes its training; returns the summary."""
  return loop.train(base_config(config), directory, data, stream=stream)


def load_base(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads {'params', 'batch_stats'} of the base network from a work directory or weights file."""
  return load_weights(path)


def protocol(
    config: Any, settings: SearchSettings, tuning: FineTuning, data: Any,
    base: str) -> dict[str, Any]:
  """Lists the facts that the accuracies depend on, for `search.json`."""
  return workdir.plain({
      'model': config.model.name, 'overrides': model_overrides(config), 'base': base,
      'steps': tuning.steps, 'batch_size': config.batch_size,
      'learning_rate': round(float(tuning.schedule(0)), 8), 'schedule': settings.schedule,
      'optimizer': config.optimizer.name, 'weight_decay': config.optimizer.weight_decay,
      'label_smoothing': config.label_smoothing, 'dtype': config.dtype,
      'data': config.data.name or config.data.root or config.data.source,
      'train_split': config.data.train_split, 'held_out_split': config.data.eval_split,
      'train_images': data.num_train, 'held_out_images': data.num_evaluation,
      'image_size': config.data.image_size,
      'device': jax.devices()[0].device_kind, 'devices': len(jax.devices()),
  })
