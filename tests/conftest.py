"""Fixtures shared by the whole suite; eight host devices are forced before JAX starts."""
import json
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
      os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8').strip()

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def data_dir():
  """The reference values that belong to the project."""
  return ROOT / 'tests' / 'data'


@pytest.fixture(scope='session')
def facts(data_dir):
  """Published parameter counts, frequency orders, subsets and recipes."""
  return json.loads((data_dir / 'facts.json').read_text())


@pytest.fixture(scope='session')
def shared_data():
  """Real photographs kept beside the checkout; tests that need them skip where there are none."""
  path = ROOT.parent / 'shared' / 'data'
  if not path.is_dir():
    pytest.skip(f'no real images at {path.name}/ beside the checkout')
  return path


@pytest.fixture
def key():
  return jax.random.key(0)
