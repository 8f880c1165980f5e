"""Where batches come from: sources, decoding, augmentation, loading."""
import importlib

# Looked up on first use, so that configs can read the settings before JAX is imported.
_MODULES = {
    'ArrayExamples': 'sources.base', 'CorruptDataError': 'reading', 'DataSet': 'sources.base',
    'DataSettings': 'settings', 'ExampleError': 'sources.base', 'Examples': 'sources.base',
    'LoaderSettings': 'settings', 'Pipeline': 'pipeline', 'create': 'pipeline',
}
__all__ = list(_MODULES)


def __getattr__(name):
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
