"""Fixtures shared by the whole suite; eight host devices are forced before JAX starts."""
import atexit
import json
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if 'xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
      os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8').strip()
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  # Tests, and the processes that they start, compile many programs more than once.
  cache = tempfile.mkdtemp(prefix='fcajax-tests-')
  atexit.register(shutil.rmtree, cache, ignore_errors=True)
  os.environ.update({
      'JAX_COMPILATION_CACHE_DIR': cache, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0'})

import jax
import pytest
from jaxtyping import install_import_hook

import tests.helpers.typecheck  # noqa: F401  the hook finds it by name

# Checks the types and shapes of every annotated function of the library while the tests run.
install_import_hook('fcajax', 'tests.helpers.typecheck.check')

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
