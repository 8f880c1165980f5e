"""From a config to the parts of a run: checks, model, steps, weights to start from."""
import difflib
import math
import pathlib

import flax
import jax
import numpy as np

from fcajax.train import checkpoint, optimizer, parallel
from fcajax.train.errors import UserError

DTYPES = ('float32', 'bfloat16')
TASKS = ('train', 'frequency_search')

_AT_LEAST_0 = (
    'seed', 'num_steps', 'num_epochs', 'checkpoint.every_steps', 'optimizer.learning_rate',
    'optimizer.learning_rate_batch', 'optimizer.weight_decay', 'optimizer.clip_norm',
    'optimizer.warmup_epochs')
_ABOVE_0 = ('eval_every_epochs', 'checkpoint.every_epochs', 'optimizer.decay_factor')
_AT_LEAST_1 = (
    'batch_size', 'eval_batch_size', 'log_every_steps', 'checkpoint.keep',
    'optimizer.accumulate_steps')
_FRACTIONS = (
    'ema_decay', 'label_smoothing', 'optimizer.momentum', 'optimizer.beta1', 'optimizer.beta2')


def model_overrides(config):
  """The arguments of `create_model` that the config sets (None = the model's default).

  A network that reads DCT coefficients gets `coefficients` from `config.data`, so that the subset
  is named once; what a file names (a subset, frequencies) is written out, because a stored model
  must not need the file.

  Raises:
    UserError: `config.model.coefficients` names another subset than `config.data.coefficients`.
  """
  from fcajax.models.options import portable
  from fcajax.models.registry import create_model as create
  values = config.model.to_dict()
  overrides = {key: value for key, value in values.items() if key != 'name' and value is not None}
  overrides = portable(overrides)
  given = overrides.pop('coefficients', None)
  if config.data.representation == 'dct' and hasattr(
      create(config.model.name, **overrides), 'coefficients'):
    from fcajax.ops.coefficients import portable_spec
    overrides['coefficients'] = portable_spec(_plain(config.data.coefficients))
    if given is not None and portable_spec(_plain(given)) != overrides['coefficients']:
      raise UserError(
          f'config.model.coefficients={given!r} differs from config.data.coefficients='
          f'{config.data.coefficients!r}; set the latter alone')
  elif given is not None:
    overrides['coefficients'] = given
  return overrides


def _plain(value):
  return value.to_dict() if hasattr(value, 'to_dict') else value


def check_config(config):
  """Checks what can be checked before any data or device is touched.

  Raises:
    UserError, ValueError: a value that cannot work, with the allowed ones.
  """
  if config.dtype not in DTYPES:
    raise UserError(f'config.dtype={config.dtype!r}; use one of {DTYPES}')
  if config.task not in TASKS:
    raise UserError(f'config.task={config.task!r}; use one of {TASKS}')
  if config.parallelism not in parallel.NAMES:
    raise UserError(f'config.parallelism={config.parallelism!r}; use one of {parallel.NAMES}')
  for keys, allowed, test in (
      (_AT_LEAST_0, 'at least 0', lambda value: value >= 0),
      (_ABOVE_0, 'above 0', lambda value: value > 0),
      (_AT_LEAST_1, 'at least 1', lambda value: value >= 1),
      (_FRACTIONS, 'at least 0 and below 1', lambda value: 0 <= value < 1)):
    for key in keys:
      value = _value(config, key)
      if not (isinstance(value, int | float) and math.isfinite(value) and test(value)):
        raise UserError(f'config.{key}={value} must be {allowed}')
  if not config.num_steps and not config.num_epochs:
    raise UserError('set config.num_epochs or config.num_steps above 0')
  optimizer.make_optimizer(config.optimizer, config.freeze)
  optimizer.frozen_mask({}, config.freeze)
  if config.optimizer.schedule not in optimizer.SCHEDULES:
    raise UserError(
        f'config.optimizer.schedule={config.optimizer.schedule!r}; use one of '
        f'{optimizer.SCHEDULES}')
  create_model(config, num_classes=2)


def _value(config, key):
  for part in key.split('.'):
    config = config[part]
  return config


def create_model(config, num_classes):
  """The network of `config.model`; its errors name near matches."""
  from fcajax.models.registry import create_model as create
  return create(config.model.name, num_classes=num_classes, **model_overrides(config))


def adapt_model(model, config, strategy, num_classes):
  """The model with the run's classes, compute dtype and batch-norm axis, where it has fields."""
  from fcajax.ops.fourier import implementation_for
  fields = {
      'num_classes': num_classes,
      'dtype': None if config.dtype == 'float32' else jax.numpy.dtype(config.dtype),
      'axis_name': strategy.norm_axis if config.sync_batch_norm else None,
  }
  if hasattr(model, 'fourier_implementation'):
    fields['fourier_implementation'] = implementation_for(
        config.parallelism, model.fourier_implementation)
  return model.clone(**{key: value for key, value in fields.items() if hasattr(model, key)})


def total_steps(config, steps_per_epoch):
  """The number of updates of the whole run."""
  return config.num_steps or max(1, round(config.num_epochs * steps_per_epoch))


def load_weights(path):
  """{'params', 'batch_stats'} of a work directory or a safetensors file, as NumPy."""
  if pathlib.Path(path).is_dir():
    return checkpoint.restore_variables(path)
  if not pathlib.Path(path).is_file():
    raise UserError(
        f'config.init_from={path} does not exist; give a work directory or a .safetensors file')
  from fcajax.weights import load_model
  return load_model(path)[1]


def start_weights(fresh, source):
  """Weights of `source` (a work directory or file) in the place of `fresh` ones.

  A network that reads DCT coefficients also takes those of the RGB network with the same stages.

  Returns:
    As `merge_weights`.
  """
  from fcajax.weights import rgb_to_dct
  loaded = load_weights(source)
  if rgb_to_dct.is_dct_variables(fresh) and not rgb_to_dct.is_dct_variables(loaded):
    return rgb_to_dct.adapt_rgb_variables(loaded, fresh)
  return merge_weights(fresh, loaded, source)


def merge_weights(fresh, loaded, source):
  """Puts loaded weights into a fresh state's trees.

  Arrays of the head (everything below 'head') whose shape differs, as another number of classes
  makes it, stay fresh.

  Args:
    fresh: {'params', 'batch_stats'} of arrays.
    loaded: the same of another run or file.
    source: its name, for the error.

  Returns:
    (the merged trees, paths that stayed fresh).

  Raises:
    UserError: arrays are missing, left over, or of another shape.
  """
  flatten = flax.traverse_util.flatten_dict
  fresh, loaded = flatten(fresh, sep='/'), flatten(loaded, sep='/')
  merged, kept, problems = {}, [], []
  for name, value in fresh.items():
    if name in loaded and loaded[name].shape == value.shape:
      merged[name] = np.asarray(loaded[name], value.dtype)
      continue
    if '/head/' in f'/{name}':
      merged[name] = value
      kept.append(name)
    elif name in loaded:
      problems.append(f'  {name} is {loaded[name].shape} there and {value.shape} here')
    else:
      problems.append(f'  {name} is missing there')
  problems += [
      f'  {name} has no place here'
      for name in loaded if name not in fresh and '/head/' not in f'/{name}']
  if problems:
    more = [f'  and {len(problems) - 10} more'] if len(problems) > 10 else []
    raise UserError(
        f'config.init_from={source} does not fit config.model:\n' +
        '\n'.join(problems[:10] + more))
  return flax.traverse_util.unflatten_dict(merged, sep='/'), kept


def frozen_parameters(params, freeze):
  """The number of parameters that `config.freeze` holds still.

  Args:
    params: nested dictionaries of arrays or shapes.
    freeze: see `optimizer.make_optimizer`.

  Raises:
    UserError: it finds no parameter, or every one.
  """
  mask = optimizer.frozen_mask(params, freeze)
  sizes = jax.tree.map(lambda leaf, frozen: (leaf.size, leaf.size * frozen), params, mask)
  pairs = jax.tree.leaves(sizes, is_leaf=lambda x: isinstance(x, tuple))
  total, frozen = sum(size for size, _ in pairs), sum(frozen for _, frozen in pairs)
  if freeze and frozen in (0, total):
    names = list(flax.traverse_util.flatten_dict(params, sep='/'))
    parts = {part for name in names for part in name.split('/')}
    what = 'no parameter' if not frozen else 'every parameter, so that nothing would be trained'
    hint = near_matches(freeze, parts) if not frozen else ''
    raise UserError(f'config.freeze={freeze!r} finds {what}{hint}; it is searched for in paths '
                    f'such as {names[0]} and {names[-1]}')
  return frozen


def near_matches(word, known):
  """'; did you mean a, b?' or ''."""
  near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
  return f'; did you mean {", ".join(near)}?' if near else ''


def model_description(config, model, num_classes):
  """What `metadata.json` says about the model."""
  if model is None:
    return {
        'name': config.model.name, 'num_classes': num_classes, 'overrides': model_overrides(config)
    }
  return {'name': f'{type(model).__module__}:{type(model).__name__}', 'num_classes': num_classes,
          'overrides': {}}


def preprocessing_description(preprocessing):
  """What `metadata.json` says about the input: `Preprocessing.to_dict`, free of files."""
  values = preprocessing.to_dict()
  if values['representation'] == 'dct':
    from fcajax.ops.coefficients import portable_spec
    values['coefficients'] = portable_spec(preprocessing.coefficients)
  return values
