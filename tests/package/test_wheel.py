"""The wheel in another folder: what a user has after `pip install fcajax`, without the checkout."""
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command, folder, site, timeout=300):
  environment = {**os.environ, 'PYTHONPATH': str(site), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  return subprocess.run(
      [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True,
      timeout=timeout)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Builds the wheel from the files that git knows, as a release does."""
  folder = tmp_path_factory.mktemp('source')
  names = subprocess.run(
      ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
      capture_output=True, check=True).stdout.decode().split('\0')
  for name in filter(None, names):
    source, target = ROOT / name, folder / name
    if not os.path.lexists(source):
      continue
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
      target.symlink_to(os.readlink(source))
    else:
      target.write_bytes(source.read_bytes())
  out = tmp_path_factory.mktemp('wheel')
  subprocess.run(
      [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
       '--wheel-dir', out, folder], check=True, capture_output=True, timeout=300)
  return next(out.glob('fcajax-*.whl'))


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
  folder = tmp_path_factory.mktemp('site')
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder)
  return folder


def test_it_installs_one_top_level_name(wheel):
  with zipfile.ZipFile(wheel) as archive:
    tops = {name.split('/')[0] for name in archive.namelist()}
  assert {top for top in tops if not top.endswith('.dist-info')} == {'fcajax'}


def test_it_holds_every_module_and_data_file(wheel):
  with zipfile.ZipFile(wheel) as archive:
    held = set(archive.namelist())
  wanted = set()
  for top, place in (('fcajax', 'fcajax'), ('configs', 'fcajax/configs'),
                     ('input_pipeline', 'fcajax/input_pipeline')):
    for path in (ROOT / top).rglob('*'):
      relative = path.relative_to(ROOT / top)
      linked = top == 'fcajax' and relative.parts[0] in ('configs', 'input_pipeline')
      if path.is_file() and '__pycache__' not in path.parts and not linked:
        wanted.add(f'{place}/{relative.as_posix()}')
  assert wanted <= held, sorted(wanted - held)


def test_train_predict_and_export_beside_a_users_own_configs(site, tmp_path):
  for name in ('configs', 'input_pipeline'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').write_text('raise RuntimeError("not yours")\n')
  colors = {'red': (200, 30, 30), 'blue': (30, 30, 200)}
  for name, color in colors.items():
    folder = tmp_path / 'photos' / name
    folder.mkdir(parents=True)
    for number in range(12):
      noise = np.random.default_rng(number).integers(-20, 20, (40, 40, 3))
      pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(folder / f'{number}.png')
  train = run(
      ['-m', 'fcajax', 'train', '--config', 'folder:smoke', '--config.data.root=photos',
       '--workdir', 'run', '--config.model.name=resnet20', '--config.data.image_size=32',
       '--config.data.validation_fraction=0.25', '--config.num_steps=2'], tmp_path, site)
  assert train.returncode == 0, train.stdout + train.stderr
  again = run(
      ['-m', 'fcajax', 'train', '--config', 'folder:smoke', '--config.data.root=photos',
       '--workdir', 'run', '--config.model.name=resnet20', '--config.data.image_size=32',
       '--config.data.validation_fraction=0.25', '--config.num_steps=2'], tmp_path, site)
  assert again.returncode == 0 and 'finished' in again.stdout, again.stdout + again.stderr
  predict = run(
      ['-m', 'fcajax', 'predict', 'run', 'photos/red/0.png', '--json'], tmp_path, site)
  assert predict.returncode == 0, predict.stderr
  assert {name for name, _ in json.loads(predict.stdout)['top']} == set(colors)
  export = run(['-m', 'fcajax', 'export', 'run', 'model.safetensors'], tmp_path, site)
  assert export.returncode == 0, export.stderr
  assert (tmp_path / 'model.safetensors').stat().st_size > 100_000
