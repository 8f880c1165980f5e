"""Weights in and out: PyTorch import, safetensors files, work directories."""
import importlib

_EXPORTS = {
    'from_torch': 'fcajax.weights.torch_import',
    'load_model': 'fcajax.weights.load',
    'load_safetensors': 'fcajax.weights.safetensors_file',
    'save_safetensors': 'fcajax.weights.safetensors_file',
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
  if name in _EXPORTS:
    return getattr(importlib.import_module(_EXPORTS[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {__all__}')


def __dir__():
  return __all__
