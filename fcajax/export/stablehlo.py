"""A trained model as a StableHLO program, the weights inside."""
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export

from fcajax.errors import UserError, writing
from fcajax.ops.target import target

PLATFORMS = ('cpu', 'cuda', 'tpu')
ALLOWED_PLATFORMS = (*PLATFORMS, 'rocm')


def export_stablehlo(function: Callable[..., Any], inputs: Sequence[jax.ShapeDtypeStruct],
                     platforms: Sequence[str] = PLATFORMS) -> bytes:
  """Serialises a pure function, the weights inside, by `jax.export`.

  Args:
    function: of arrays.
    inputs: its arguments' shapes, perhaps with symbolic sizes; see `Task.exported_function`.
    platforms: where the file shall run, of `ALLOWED_PLATFORMS`.

  Returns:
    Bytes for `jax.export.deserialize(...).call(*arrays)`.
  """
  exporter = export.export(jax.jit(function), platforms=tuple(platforms))
  with target(*platforms):
    exported = exporter(*inputs)
  return bytes(exported.serialize())


def check_platforms(platforms: Sequence[str]) -> None:
  """Raises UserError unless every platform is known and the package for the format is installed."""
  unknown = [name for name in platforms if name not in ALLOWED_PLATFORMS]
  if unknown:
    raise UserError(f"--platforms={','.join(platforms)}: unknown {', '.join(unknown)}; "
                    f"choose among {', '.join(ALLOWED_PLATFORMS)}")
  try:
    import flatbuffers  # noqa: F401
  except ModuleNotFoundError:
    raise UserError("a .stablehlo file needs the package flatbuffers: "
                    "pip install 'fcajax[export]'") from None


def save_stablehlo(path: str | pathlib.Path, function: Callable[..., Any],
                   inputs: Sequence[jax.ShapeDtypeStruct],
                   platforms: Sequence[str] = PLATFORMS) -> None:
  """Writes the bytes of `export_stablehlo` to a file."""
  blob = export_stablehlo(function, inputs, platforms)
  with writing(path):
    pathlib.Path(path).write_bytes(blob)
