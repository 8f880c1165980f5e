"""Operations, layers and models need JAX, Flax and NumPy, and nothing else of the project's."""
import subprocess
import sys

PROGRAM = '''
import importlib, pkgutil, sys

BLOCKED = set(
    'array_record beartype clu cv2 grain jaxtyping matplotlib ml_collections optax orbax '
    'PIL pandas psutil safetensors simplejpeg sklearn tensorboard tensorflow '
    'tensorflow_datasets threadpoolctl torch'.split())


class Blocker:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in BLOCKED:
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)


sys.meta_path.insert(0, Blocker())
for room in ('fcajax.ops', 'fcajax.layers', 'fcajax.models'):
  package = importlib.import_module(room)
  for module in pkgutil.walk_packages(package.__path__, room + '.'):
    importlib.import_module(module.name)

import jax, fcajax
from fcajax.typing import Array, Float

assert str(Float[Array, 'n h w c']) == 'typing.Any'
model = fcajax.create_model('fca_resnet20', num_classes=3, frequencies='top4')
shape = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3))))[0].shape
print(shape, sorted(BLOCKED & {name.partition('.')[0] for name in sys.modules}))
'''


def test_models_run_where_nothing_else_is_installed():
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == '(1, 3) []'
