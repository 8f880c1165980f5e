"""A trained model from a safetensors file or a work directory."""
import pathlib
from typing import Any

import jax
from flax import traverse_util

from fcajax.errors import NotFoundError, UserError
from fcajax.layers.streams import variable_shapes
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing, device_transform
from fcajax.weights.safetensors_file import COLLECTIONS, check_metadata, load_safetensors
from fcajax.workdir.checkpoints import read_metadata, restore_variables


def load_model(
    path: str | pathlib.Path, step: str | int = 'best',
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
  """Opens trained weights.

  Args:
    path: a `.safetensors` file, or a work directory of `fcajax train`.
    step: of a work directory: 'best', 'latest' or a number.

  Returns:
    (model, variables, metadata): the Linen module, {'params', 'batch_stats'} of NumPy arrays, and
    {'task', 'model': {'name', 'overrides', what the data decided: 'num_classes'}, 'class_names':
    [...], 'preprocessing': {...}}.

  Raises:
    UserError: nothing is there, no weights in it, a damaged file, a network that this version does
      not know, or weights or class names that are not those of the network described.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    metadata = read_metadata(path)
    check_metadata(metadata, path)
    variables = restore_variables(path, step)
  elif path.exists():
    variables, metadata = load_safetensors(path)
  else:
    raise NotFoundError(
        f"'{path}' does not exist; give a .safetensors file or a work directory of 'fcajax train'")
  description = metadata['model']
  arguments = {key: value for key, value in description.items()
               if key not in ('name', 'overrides')}
  model = create_model(description['name'], **arguments, **description['overrides'])
  _check_weights(path, model, variables, metadata)
  return model, variables, metadata


def _check_weights(path: pathlib.Path, model: Any, variables: dict[str, Any],
                   metadata: dict[str, Any]) -> None:
  """Raises UserError unless the tree of variables and the class names are those of `model`."""
  description, names = metadata['model'], metadata['class_names'] or ()
  count = description.get('num_classes', len(names))
  if len(names) != count:
    raise UserError(f"'{path}' names {len(names)} classes for a network of {count}; write it anew "
                    'with a name for each')
  preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
  pixels = jax.ShapeDtypeStruct((1, *preprocessing.shape, 3), 'uint8')
  try:
    expected = variable_shapes(
        model, jax.eval_shape(device_transform(preprocessing, 'float32'), pixels))
  except UserError as error:
    raise UserError(f"'{path}' at its image size: {error}") from error
  wanted, found = (
      {'/'.join(keys): list(leaf.shape) for keys, leaf in traverse_util.flatten_dict(
          {part: tree[part] for part in COLLECTIONS if part in tree}).items()}
      for tree in (expected, variables))
  wrong = [f'{name}: {found.get(name, "nothing")} for {wanted.get(name, "nothing")}'
           for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
  if wrong:
    raise UserError(
        f"the weights in '{path}' are not those of {description['name']}, which it names; write it "
        f"anew with fcajax convert or export. {len(wrong)} differ, such as {'; '.join(wrong[:3])}")
