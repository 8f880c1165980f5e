"""timm's networks with random weights, also where torchvision has no build for this PyTorch.

timm imports torchvision for its data loading, which nothing here uses. Where torchvision is
missing, or is PyPI's CUDA build beside a CPU build of PyTorch, empty modules stand in for it while
timm is imported.
"""
import importlib
import sys
import types

import pytest

_MODULES = ('torchvision', 'torchvision.datasets', 'torchvision.models',
            'torchvision.models.feature_extraction', 'torchvision.ops', 'torchvision.ops.misc',
            'torchvision.transforms', 'torchvision.transforms.functional', 'torchvision.utils')


class _Names(type):
  """A class whose attributes are their own names: `InterpolationMode.NEAREST`."""

  def __getattr__(cls, name):
    if name.startswith('__'):
      raise AttributeError(name)
    return name


class _Stand(types.ModuleType):
  """A module with a class of any name in it."""

  def __getattr__(self, name):
    if name.startswith('__'):
      raise AttributeError(name)
    return _Names(name, (), {})


def _forget(name):
  for module in [m for m in sys.modules if m == name or m.startswith(f'{name}.')]:
    del sys.modules[module]


def import_timm():
  """The module timm; skips the test where PyTorch or timm is not installed."""
  pytest.importorskip('torch', reason='needs PyTorch: pip install -e .[torch]')
  if importlib.util.find_spec('timm') is None:
    pytest.skip('needs timm: pip install --no-deps timm')
  if 'timm' in sys.modules:
    return sys.modules['timm']
  try:
    import torchvision  # noqa: F401
    return importlib.import_module('timm')
  except (ImportError, RuntimeError):
    _forget('torchvision')
    for name in _MODULES:
      sys.modules[name] = _Stand(name)
      sys.modules[name].__path__ = []
      parent, _, child = name.rpartition('.')
      if parent:
        setattr(sys.modules[parent], child, sys.modules[name])
    try:
      return importlib.import_module('timm')
    finally:
      _forget('torchvision')


def create(name, seed=0, **options):
  """A timm network in evaluation mode, its running statistics and biases away from 0 and 1."""
  timm = import_timm()
  import torch
  generator = torch.Generator().manual_seed(seed)
  model = timm.create_model(name, **options).eval()

  def normal(tensor):
    return 0.1 * torch.randn(tensor.shape, generator=generator)
  with torch.no_grad():
    for key, tensor in model.state_dict().items():
      if key.endswith('running_var'):
        tensor.copy_(torch.exp(normal(tensor)))
      elif key.endswith('running_mean') or (tensor.ndim == 1 and key.endswith('bias')):
        tensor.copy_(normal(tensor))
      elif tensor.ndim == 1 and key.endswith('weight'):
        tensor.copy_(1 + normal(tensor))
  return model
