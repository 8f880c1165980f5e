"""Checkpoint files of PyTorch programs, read without running anything in them."""
import pathlib
import pickle
import re
import struct
from typing import Any

from fcajax.errors import NotFoundError, UserError, reading
from fcajax.weights.safetensors_file import METADATA_KEY, read_arrays


def read_checkpoint(path: str | pathlib.Path) -> Any:
  """Reads a `.pth` (or `.pt`, `.bin`, ...) or `.safetensors` file of PyTorch weights.

  Returns:
    For `.safetensors`, {name: NumPy array}; else what `torch.load(weights_only=True)` gives,
    which `fcajax.weights.from_torch` takes as it is.

  Raises:
    UserError: no such file, truncated, no checkpoint, a pickle that wants to run code, or a file
      that needs PyTorch where it is not installed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise NotFoundError(f"no such checkpoint: '{path}'")
  return _read_safetensors(path) if path.suffix == '.safetensors' else _read_pickle(path)


def _read_safetensors(path: pathlib.Path) -> dict[str, Any]:
  arrays, header = read_arrays(path)
  if METADATA_KEY in header:
    raise UserError(f"'{path}' is a weights file of this package already, not of PyTorch; "
                     'open it with fcajax.load_model')
  return arrays


def _read_pickle(path: pathlib.Path) -> Any:
  try:
    import torch
  except ModuleNotFoundError:
    raise UserError(f"reading '{path}' needs PyTorch: pip install 'fcajax[torch]' "
                     '(for the CPU alone: pip install torch --index-url '
                     'https://download.pytorch.org/whl/cpu), or weights saved as '
                     '.safetensors') from None
  try:
    with reading(path):
      return torch.load(path, map_location='cpu', weights_only=True)
  except UserError:
    raise
  except pickle.UnpicklingError as error:
    if 'Unsupported global' in str(error) or 'Unsupported class' in str(error):
      raise UserError(
          f"'{path}' holds more than tensors, and loading it would run code from the file. "
          'In the program that wrote it, save the tensors alone: '
          f'torch.save(model.state_dict(), OUT). PyTorch says: {_first_sentences(error)}'
      ) from error
    raise UserError(_broken(path, error)) from error
  # What PyTorch's reader raises for a truncated file; it differs between its versions.
  except (RuntimeError, EOFError, LookupError, ValueError, AssertionError, TypeError,
          AttributeError, struct.error) as error:
    if 'TorchScript' in str(error):
      raise UserError(f"'{path}' is a TorchScript program, which is code; save its state_dict() "
                       'instead') from error
    raise UserError(_broken(path, error)) from error


def _broken(path: pathlib.Path, error: Exception) -> str:
  return (f"'{path}' is no PyTorch checkpoint or was cut short "
          f'({_first_sentences(error) or type(error).__name__}); copy it again')


def _first_sentences(error: Exception) -> str:
  # PyTorch then advises weights_only=False, which would run whatever code the file holds.
  sentences = [sentence.strip() for line in str(error).splitlines()
               for sentence in re.split(r'(?<=\.)\s', line)]
  harmless = [s for s in sentences if s and 'weights_only' not in s]
  wanted = [s for s in harmless if 'GLOBAL' in s] or harmless[:1]
  return wanted[0][:200].rstrip('.') if wanted else ''
