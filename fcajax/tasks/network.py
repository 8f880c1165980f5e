"""From a config to the network that it names, and what is stored about it."""
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from fcajax.errors import UserError
from fcajax.models.options import portable
from fcajax.models.registry import create_model as create
from fcajax.ops.fourier import implementation_for
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection.coefficients import portable_spec


def model_overrides(config: ConfigDict) -> dict[str, Any]:
  """Returns the arguments of `create_model` that the config sets; None is the model's default.

  A network that reads DCT coefficients gets `coefficients` from `config.data`, so that the subset
  is named once. What a file names (a subset, frequencies) is written out, because a stored model
  must not need the file.

  Raises:
    UserError: `config.model.coefficients` names another subset than `config.data.coefficients`.
  """
  values = config.model.to_dict()
  overrides = portable(
      {key: value for key, value in values.items() if key != 'name' and value is not None})
  given = overrides.pop('coefficients', None)
  if config.data.get('representation') == 'dct' and hasattr(
      create(config.model.name, **overrides), 'coefficients'):
    overrides['coefficients'] = portable_spec(_plain(config.data.coefficients))
    if given is not None and portable_spec(_plain(given)) != overrides['coefficients']:
      raise UserError(
          f'config.model.coefficients={given!r} differs from config.data.coefficients='
          f'{config.data.coefficients!r}; set the latter alone')
  elif given is not None:
    overrides['coefficients'] = given
  return overrides


def _plain(value: Any) -> Any:
  return value.to_dict() if hasattr(value, 'to_dict') else value


def create_model(config: ConfigDict, **arguments: Any) -> nn.Module:
  """Returns the network of `config.model`; its errors name near matches.

  Args:
    config: the run's config.
    **arguments: what the data decide, such as `num_classes`.
  """
  return create(config.model.name, **arguments, **model_overrides(config))


def adapt_model(model: nn.Module, config: ConfigDict, norm_axis: str | None,
                arguments: dict[str, Any]) -> nn.Module:
  """Returns the model with the run's compute dtype, batch-norm axis and `arguments`.

  Only what the model has as a field is set.
  """
  fields = {
      **arguments,
      'dtype': None if config.dtype == 'float32' else jnp.dtype(config.dtype),
      'axis_name': norm_axis if config.sync_batch_norm else None,
  }
  if hasattr(model, 'fourier_implementation'):
    fields['fourier_implementation'] = implementation_for(
        config.parallelism, model.fourier_implementation)
  return model.clone(**{key: value for key, value in fields.items() if hasattr(model, key)})


def model_description(config: ConfigDict, model: nn.Module | None,
                      arguments: dict[str, Any]) -> dict[str, Any]:
  """Returns what `metadata.json` says about the network: name, `arguments` and overrides."""
  if model is None:
    return {'name': config.model.name, **arguments, 'overrides': model_overrides(config)}
  return {
      'name': f'{type(model).__module__}:{type(model).__name__}', **arguments, 'overrides': {}}


def preprocessing_description(preprocessing: Preprocessing) -> dict[str, Any]:
  """Returns what `metadata.json` says about the input: `Preprocessing.to_dict`, free of files."""
  values = preprocessing.to_dict()
  if values['representation'] == 'dct':
    values['coefficients'] = portable_spec(preprocessing.coefficients)
  return values
