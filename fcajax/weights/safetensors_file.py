"""Variables and their description in one `.safetensors` file: no pickle, readable anywhere."""
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fcajax.errors import NotFoundError, UserError, reading, writing

METADATA_KEY = 'fcajax'
# What the description of a network holds, and the type of each part.
METADATA_PARTS = {'model': dict, 'class_names': (list, type(None)), 'preprocessing': dict}
MODEL_PARTS = {'name': str, 'overrides': dict}
COLLECTIONS = ('params', 'batch_stats')

Path = str | pathlib.Path


def save_safetensors(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
  """Writes `variables` with `metadata` in the file's header.

  Args:
    path: ends in '.safetensors'; replaced as a whole, so that a full disk leaves the old file.
    variables: {'params': ..., 'batch_stats': ...}; stored as 'params/stem_conv/kernel', ...
    metadata: {'model': {'name', 'num_classes', 'overrides'}, 'class_names': [...],
      'preprocessing': {...}}, JSON-able.

  Raises:
    UserError: another suffix, or the file cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix != '.safetensors':
    raise UserError(f"weights file '{path}' must be named *.safetensors")
  tree = {name: variables[name] for name in COLLECTIONS if name in variables}
  arrays = {'/'.join(keys): np.ascontiguousarray(value)
            for keys, value in traverse_util.flatten_dict(tree).items()}
  blob = save(arrays, metadata={METADATA_KEY: json.dumps(metadata)})
  temporary = path.with_name(path.name + '.partial')
  with writing(path):
    try:
      temporary.write_bytes(blob)
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)


def load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a file of `save_safetensors`: returns (variables of NumPy arrays, metadata).

  Raises:
    UserError: no such file, truncated, another kind of file, or without the description of a
      network.
  """
  arrays, header = read_arrays(path)
  if METADATA_KEY not in header:
    raise UserError(f"'{path}' does not say which network it belongs to; for weights from "
                    f'PyTorch: fcajax convert {path} OUT.safetensors --model NAME')
  variables = traverse_util.unflatten_dict(
      {tuple(name.split('/')): value for name, value in arrays.items()})
  try:
    metadata = json.loads(header[METADATA_KEY])
  except json.JSONDecodeError as error:
    raise UserError(f"the description in '{path}' is damaged ({error})") from error
  check_metadata(metadata, path)
  return variables, metadata


def check_metadata(metadata: Any, path: Path) -> None:
  """Raises UserError unless `metadata`, found at `path`, holds what `load_model` needs."""
  missing, wrong = ['everything'], []
  if isinstance(metadata, dict):
    model = metadata.get('model')
    model = model if isinstance(model, dict) else {}
    parts = [(key, metadata, key, kind) for key, kind in sorted(METADATA_PARTS.items())]
    parts += [(f'model.{key}', model, key, kind) for key, kind in MODEL_PARTS.items()]
    missing = [name for name, tree, key, _ in parts if key not in tree]
    wrong = [f'{name}={tree[key]!r}' for name, tree, key, kind in parts
             if key in tree and not isinstance(tree[key], kind)]
  if missing:
    raise UserError(f"the description of the network in '{path}' lacks {', '.join(missing)}; "
                    'write it anew')
  if wrong:
    raise UserError(f"the description of the network in '{path}' is damaged: "
                    f"{', '.join(wrong)[:200]} is of a wrong type; write it anew")


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Reads the tensors (name -> array) and the header (key -> text) of any `.safetensors` file.

  Raises:
    UserError: no such file, truncated, or another file format.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise NotFoundError(f"no such weights file: '{path}'")
  try:
    with reading(path), safe_open(path, framework='numpy') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except SafetensorError as error:
    raise UserError(f"'{path}' is no safetensors file or was cut short ({error}); "
                    'copy it again or write it anew') from error
