"""Starts a network from the weights of another: what `config.init_from` does."""
import pathlib
import re
from typing import Any

import numpy as np
from flax import traverse_util

from fcajax import trees
from fcajax.errors import UserError
from fcajax.weights import rgb_to_dct
from fcajax.weights.safetensors_file import load_safetensors
from fcajax.workdir.checkpoints import restore_variables

# What depends on the classes, and what a detector without masks lacks.
_HEADS = re.compile(r'(^|/)(head|box_head/(logits|deltas)|mask_head)/')


def load_weights(path: str | pathlib.Path) -> dict[str, Any]:
  """Returns {'params', 'batch_stats'} of a work directory or a safetensors file, as NumPy."""
  if pathlib.Path(path).is_dir():
    return restore_variables(path)
  if not pathlib.Path(path).is_file():
    raise UserError(
        f'config.init_from={path} does not exist; give a work directory or a .safetensors file')
  return load_safetensors(path)[0]


def start_weights(fresh: dict[str, Any], source: str | pathlib.Path
                  ) -> tuple[dict[str, Any], list[str]]:
  """Replaces `fresh` weights by those of `source`, a work directory or file.

  A network that reads DCT coefficients also takes those of the RGB network with the same stages. A
  network with a backbone, such as a detector, takes those of a classifier for its backbone.

  Returns:
    As `merge_weights`.
  """
  loaded = load_weights(source)
  if 'backbone' in fresh['params'] and 'backbone' not in loaded['params']:
    return _with_backbone(fresh, loaded, source)
  return _start(fresh, loaded, source)


def _with_backbone(fresh: dict[str, Any], loaded: dict[str, Any], source: str | pathlib.Path
                   ) -> tuple[dict[str, Any], list[str]]:
  """Puts the weights of a classifier into the backbone; names new modules, not their arrays."""
  inside = {part: tree['backbone'] for part, tree in fresh.items() if 'backbone' in tree}
  backbone, kept = _start(inside, loaded, source)
  merged = {part: {**tree, **({'backbone': backbone[part]} if part in backbone else {})}
            for part, tree in fresh.items()}
  new = [f'params/{name}' for name in fresh['params'] if name != 'backbone']
  return merged, [name.replace('/', '/backbone/', 1) for name in kept] + new


def _start(fresh: dict[str, Any], loaded: dict[str, Any], source: str | pathlib.Path
           ) -> tuple[dict[str, Any], list[str]]:
  if rgb_to_dct.is_dct_variables(fresh) and not rgb_to_dct.is_dct_variables(loaded):
    return rgb_to_dct.adapt_rgb_variables(loaded, fresh)
  return merge_weights(fresh, loaded, source)


def _in_head(name: str) -> bool:
  return bool(_HEADS.search(name))


def merge_weights(fresh: dict[str, Any], loaded: dict[str, Any], source: str | pathlib.Path
                  ) -> tuple[dict[str, Any], list[str]]:
  """Puts loaded weights into a fresh state's trees.

  Arrays of the head (everything below 'head', a detector's last layers and its mask head) whose
  shape differs, as another number of classes makes it, or that are missing, stay fresh.

  Args:
    fresh: {'params', 'batch_stats'} of arrays.
    loaded: the same of another run or file.
    source: its name, for the error.

  Returns:
    (the merged trees, paths that stayed fresh).

  Raises:
    UserError: arrays outside the head are missing, left over, or of another shape.
  """
  fresh, loaded = trees.by_name(fresh), trees.by_name(loaded)
  problems = trees.differences(trees.shapes(loaded), trees.shapes(fresh), ignore=_in_head)
  if problems:
    raise UserError(f'config.init_from={source} does not fit config.model:\n'
                    + trees.listing(problems, limit=10))
  fits = {name for name, value in fresh.items()
          if name in loaded and loaded[name].shape == value.shape}
  merged = {name: np.asarray(loaded[name], value.dtype) if name in fits else value
            for name, value in fresh.items()}
  kept = [name for name in fresh if name not in fits]
  return traverse_util.unflatten_dict(merged, sep='/'), kept
