"""Names and stored files are a promise: what version 0.1 wrote is read by later versions."""
import gzip
import json
import pathlib
import shutil
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import fcajax
from fcajax.inference import open_model
from fcajax.models.registry import create_model, list_models

HERE = pathlib.Path(__file__).parent
GOLDEN = json.loads(gzip.decompress((HERE / 'variables.json.gz').read_bytes()))
# Logits of `weights_v0_1.safetensors` for two inputs drawn from seed 0, as version 0.1 gave them.
LOGITS = np.array([
    [0.2557523, 0.0457262, -0.0297213, -0.0317726, 0.0210303, -0.0921609, 0.0333508, -0.0418203,
     -0.1374475, -0.0400915],
    [0.2218748, 0.0286702, -0.0106645, -0.0544693, 0.0297785, -0.0690497, -0.0031643, -0.0869540,
     -0.1145784, -0.0226877]])


@pytest.mark.parametrize('label', sorted(GOLDEN))
def test_variables_keep_their_names_and_shapes(label):
  entry = GOLDEN[label]
  model = create_model(entry['model'], **entry['options'])
  shape = open_model.input_shape(model, open_model.image_size(None, model))
  variables = jax.eval_shape(
      lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  found = {
      path: list(leaf.shape) for path, leaf in flat.items()
      if path.split('/')[0] in ('params', 'batch_stats')}
  assert found == entry['variables']


def test_no_model_of_the_first_version_is_gone():
  assert {entry['model'] for entry in GOLDEN.values()} <= set(list_models())


@pytest.fixture
def workdir(tmp_path):
  with tarfile.open(HERE / 'workdir_v0_1.tar.gz') as archive:
    archive.extractall(tmp_path / 'run', filter='data')
  return tmp_path / 'run'


@pytest.mark.parametrize('kind', ['safetensors', 'workdir'])
def test_stored_weights_compute_what_they_did(kind, workdir, tmp_path):
  path = workdir
  if kind == 'safetensors':
    path = shutil.copy(HERE / 'weights_v0_1.safetensors', tmp_path)
  model, variables, metadata = fcajax.load_model(path)
  x = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
  np.testing.assert_allclose(model.apply(variables, x, train=False), LOGITS, atol=2e-6)
  assert metadata['class_names'] == [str(i) for i in range(10)]
