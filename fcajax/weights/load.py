"""A trained model from a safetensors file or a work directory."""
import pathlib

from fcajax.weights.safetensors_file import COLLECTIONS, check_metadata, load_safetensors


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
    ValueError: no weights in it, a damaged file, a network that this version does not know, or
      weights or class names that are not those of the network described.
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
  _check_weights(path, model, variables, metadata)
  return model, variables, metadata


def _check_weights(path, model, variables, metadata):
  """Raises ValueError unless the tree of variables and the class names are those of `model`."""
  import jax
  from flax import traverse_util

  from fcajax.preprocess import Preprocessing, device_transform
  description, names = metadata['model'], metadata['class_names'] or ()
  if len(names) != description['num_classes']:
    raise ValueError(f"'{path}' names {len(names)} classes for a network of "
                     f"{description['num_classes']}; write it anew with a name for each")
  preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
  to_input = device_transform(preprocessing, 'float32')

  def start(key, images):
    keys = dict.fromkeys(('params', 'dropout', 'gate'), key)
    return model.init(keys, to_input(images), train=False)
  try:
    expected = jax.eval_shape(
        start, jax.random.key(0), jax.ShapeDtypeStruct((1, *preprocessing.shape, 3), 'uint8'))
  except ValueError as error:
    raise ValueError(f"'{path}' at its image size: {error}") from error
  wanted, found = (
      {'/'.join(keys): list(leaf.shape) for keys, leaf in traverse_util.flatten_dict(
          {part: tree[part] for part in COLLECTIONS if part in tree}).items()}
      for tree in (expected, variables))
  wrong = [f'{name}: {found.get(name, "nothing")} for {wanted.get(name, "nothing")}'
           for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
  if wrong:
    raise ValueError(
        f"the weights in '{path}' are not those of {description['name']}, which it names; write it "
        f"anew with fcajax convert or export. {len(wrong)} differ, such as {'; '.join(wrong[:3])}")
