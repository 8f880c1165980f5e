"""A PyTorch checkpoint file -> a network and its variables."""
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from fcajax.errors import UserError
from fcajax.models.options import portable
from fcajax.models.registry import create_model, option_names
from fcajax.weights.torch.checkpoint_file import read_checkpoint
from fcajax.weights.torch.from_torch import (
  clean_state,
  from_torch,
  rules_for,
  shared_prefix,
  tensors,
)


class Converted(NamedTuple):
  """A network with the weights of a PyTorch checkpoint.

  Attributes:
    model: the Linen module.
    variables: {'params', 'batch_stats'} of NumPy arrays.
    overrides: all fields that the model was built with. Fields that name files are written out,
      as stored weights must not need the files.
    prefix: what was left out of the start of every name.
  """
  model: Any
  variables: dict[str, Any]
  overrides: dict[str, Any]
  prefix: str


def convert_checkpoint(path: str | pathlib.Path, name: str, num_classes: int | None = None,
                       overrides: Mapping[str, Any] | None = None) -> Converted:
  """Reads PyTorch weights into the network `name`.

  Args:
    path: a checkpoint, as `read_checkpoint` takes it.
    name: of `list_models()`.
    num_classes: None takes the width of the checkpoint's head.
    overrides: of `create_model`; they win over what the checkpoint tells about the network (biases
      in the attention, its width).

  Raises:
    UserError: no checkpoint, or one that does not fit; every key that does not is listed.
  """
  plain = create_model(name, **(overrides or {}))
  overrides = portable(dict(overrides or {}))
  checkpoint = read_checkpoint(path)
  state = clean_state(checkpoint)
  inferred = rules_for(plain).infer_overrides(state)
  classes = inferred.pop('num_classes', None)
  allowed = option_names(name, **overrides)
  overrides = {**{key: value for key, value in inferred.items() if key in allowed}, **overrides}
  model = create_model(name, num_classes=num_classes or classes or plain.num_classes, **overrides)
  try:
    variables = from_torch(state, model)
  except UserError as error:
    raise type(error)(f"'{path}' as {name}: {error}") from error
  return Converted(model, variables, overrides, shared_prefix(tensors(checkpoint)))
