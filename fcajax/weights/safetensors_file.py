"""Variables and their description in one `.safetensors` file: no pickle, readable anywhere."""
import json
import pathlib

import numpy as np
from flax import traverse_util

METADATA_KEY = 'fcajax'
METADATA_PARTS = {'model', 'class_names', 'preprocessing'}
MODEL_PARTS = ('name', 'num_classes', 'overrides')
COLLECTIONS = ('params', 'batch_stats')


def save_safetensors(path, variables, metadata):
  """Writes `variables` with `metadata` in the file's header.

  Args:
    path: ends in '.safetensors'; replaced as a whole, so that a full disk leaves the old file.
    variables: {'params': ..., 'batch_stats': ...}; stored as 'params/stem_conv/kernel', ...
    metadata: {'model': {'name', 'num_classes', 'overrides'}, 'class_names': [...],
      'preprocessing': {...}}, JSON-able.
  """
  from safetensors.numpy import save
  path = pathlib.Path(path)
  if path.suffix != '.safetensors':
    raise ValueError(f"weights file '{path}' must be named *.safetensors")
  tree = {name: variables[name] for name in COLLECTIONS if name in variables}
  arrays = {'/'.join(keys): np.ascontiguousarray(value)
            for keys, value in traverse_util.flatten_dict(tree).items()}
  blob = save(arrays, metadata={METADATA_KEY: json.dumps(metadata)})
  temporary = path.with_name(path.name + '.partial')
  temporary.write_bytes(blob)
  temporary.replace(path)


def load_safetensors(path):
  """Reads a file of `save_safetensors`: returns (variables of NumPy arrays, metadata).

  Raises:
    ValueError: truncated, another kind of file, or without the description of a network.
    FileNotFoundError: no such file.
  """
  arrays, header = read_arrays(path)
  if METADATA_KEY not in header:
    raise ValueError(f"'{path}' does not say which network it belongs to; for weights from "
                     f'PyTorch: fcajax convert {path} OUT.safetensors --model NAME')
  variables = traverse_util.unflatten_dict(
      {tuple(name.split('/')): value for name, value in arrays.items()})
  try:
    metadata = json.loads(header[METADATA_KEY])
  except json.JSONDecodeError as error:
    raise ValueError(f"the description in '{path}' is damaged ({error})") from error
  check_metadata(metadata, path)
  return variables, metadata


def check_metadata(metadata, path):
  """Raises ValueError unless `metadata`, found at `path`, says what `load_model` needs."""
  missing = ['everything']
  if isinstance(metadata, dict):
    missing = sorted(METADATA_PARTS - set(metadata))
    model = metadata.get('model') or {}
    missing += [f'model.{key}' for key in MODEL_PARTS if key not in model]
  if missing:
    raise ValueError(f"the description of the network in '{path}' lacks {', '.join(missing)}; "
                     'write it anew')


def read_arrays(path):
  """The tensors and the header of any `.safetensors` file: ({name: NumPy array}, {key: text}).

  Raises:
    FileNotFoundError: no such file.
    ValueError: truncated, or no such file format.
  """
  from safetensors import SafetensorError, safe_open
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no such weights file: '{path}'")
  try:
    with safe_open(path, framework='numpy') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except SafetensorError as error:
    raise ValueError(f"'{path}' is no safetensors file or was cut short ({error}); "
                     'copy it again or write it anew') from error
