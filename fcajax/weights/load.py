"""A trained model from a safetensors file or a work directory."""
import pathlib

from fcajax.weights.safetensors_file import check_metadata, load_safetensors


def load_model(path, step='best'):
  """Opens trained weights.

  Args:
    path: a `.safetensors` file, or a work directory of train.py.
    step: of a work directory: 'best', 'latest' or a number.

  Returns:
    (model, variables, metadata): the Linen module, {'params', 'batch_stats'} of NumPy arrays, and
    {'model': {'name', 'num_classes', 'overrides'}, 'class_names': [...], 'preprocessing': {...}}.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: no weights in it, a damaged file, or a network that this version does not know.
  """
  from fcajax.models.registry import create_model
  path = pathlib.Path(path)
  if path.is_dir():
    from fcajax.train.checkpoint import read_metadata, restore_variables
    metadata = read_metadata(path)
    check_metadata(metadata, path)
    variables = restore_variables(path, step)
  elif path.exists():
    variables, metadata = load_safetensors(path)
  else:
    raise FileNotFoundError(
        f"'{path}' does not exist; give a .safetensors file or a work directory of train.py")
  description = metadata['model']
  model = create_model(
      description['name'], num_classes=description['num_classes'], **description['overrides'])
  return model, variables, metadata
