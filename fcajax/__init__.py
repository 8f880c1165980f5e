"""Frequency-domain vision in JAX: FcaNet, DCT-input networks, fast Fourier convolution.

    model = fcajax.create_model('fca_resnet50', num_classes=1000)
    variables = model.init(jax.random.key(0), images, train=False)
    logits = model.apply(variables, images, train=False)

Names are resolved on first use, so that `import fcajax` does not import JAX.
"""
import importlib
from typing import Any

__version__ = '0.1.0'

_EXPORTS = {
    'create_model': 'fcajax.models.registry',
    'list_models': 'fcajax.models.registry',
    'load_model': 'fcajax.inference.load',
    'target': 'fcajax.ops.target',
}

__all__ = sorted([*_EXPORTS, '__version__'])


def __getattr__(name: str) -> Any:
  if name in _EXPORTS:
    return getattr(importlib.import_module(_EXPORTS[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {__all__}')


def __dir__() -> list[str]:
  return __all__
