"""TFDS sources: prepared sets, conversion, preparation, and TensorFlow left alone."""
import io
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from fcajax import input_pipeline
from fcajax.cli import main as cli
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources import tfds as tfds_source

ROOT = pathlib.Path(__file__).resolve().parents[2]

BUILDER = '''
import io
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class {name}(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features.FeaturesDict({{
        'image': tfds.features.Image(shape=(16, 16, 3), encoding_format='png'),
        'label': tfds.features.ClassLabel(names=['dark', 'light'])}})
    return tfds.core.DatasetInfo(builder=self, features=features,
                                 supervised_keys=('image', 'label'))

  def _split_generators(self, manager):
    return {{'train': self._generate_examples(12), 'test': self._generate_examples(5)}}

  def _generate_examples(self, count):
    for i in range(count):
      pixels = np.full((16, 16, 3), 100 * (i % 2) + i, np.uint8)
      buffer = io.BytesIO()
      Image.fromarray(pixels).save(buffer, 'PNG')
      buffer.seek(0)
      yield i, {{'image': {image}, 'label': i % 2}}
'''


def prepare(words):
  """The exit status of `fcajax prepare`."""
  return cli.main(['prepare', *words])


def write_builder(directory, name, image):
  path = directory / f'{name.lower()}.py'
  path.write_text(BUILDER.format(name=name, image=image))
  return path


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
  """A data directory with the data set 'squares', made by the command."""
  directory = tmp_path_factory.mktemp('squares')
  builder = write_builder(directory, 'Squares', 'buffer')
  assert prepare([str(builder), '--data-dir', str(directory / 'data')]) == 0
  return directory / 'data'


def config(data_dir, **values):
  return {'source': 'tfds', 'name': 'squares', 'data_dir': str(data_dir), 'image_size': 16,
          'resize_size': 16, **values}


def create(data_config, batch_size=4):
  return input_pipeline.create(data_config, batch_size=batch_size, eval_batch_size=batch_size,
                               seed=0, process_index=0, process_count=1)


def test_a_prepared_set_is_read(squares):
  pipeline = create(config(squares))
  assert (pipeline.num_train, pipeline.num_evaluation) == (12, 5)
  assert pipeline.class_names == ['dark', 'light']
  assert pipeline.device_augment is not None  # small and of one size: kept in memory
  seen = [pixel for batch in pipeline.evaluation_batches()
          for pixel in batch['image'][batch['mask'] > 0, 0, 0, 0]]
  assert sorted(seen) == sorted(100 * (i % 2) + i for i in range(5))
  for batch in pipeline.evaluation_batches():
    light = batch['image'][:, 0, 0, 0] > 60
    np.testing.assert_array_equal(batch['label'], light & (batch['mask'] > 0))


@pytest.mark.parametrize('values', ({'name': 'squares:1.0.0'}, {'name': ''},
                                    {'train_split': 'train[:50%]', 'eval_split': 'train[50%:]'}))
def test_names_versions_and_slices(squares, values):
  directory = squares / 'squares' / '1.0.0' if not values.get('name', 'x') else squares
  pipeline = create(config(directory, **values))
  assert pipeline.num_train == (6 if 'train_split' in values else 12)


@pytest.mark.parametrize('values, message', (
  ({'name': 'squaers'}, 'did you mean squares'),
  ({'name': 'squares:2.0.0'}, 'no prepared version 2.0.0'),
  ({'name': 'cifar10'}, 'fcajax prepare cifar10'),
  ({'train_split': 'training'}, "no split 'training'"),
  ({'name': ''}, 'data.name is empty')))
def test_what_is_not_there_is_an_error(squares, values, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    create(config(squares, **values))


def as_tfrecord(source, target):
  """Rewrites a prepared set as TFDS stores it by default."""
  target.mkdir(parents=True)
  for path in source.iterdir():
    if '.array_record-' in path.name:
      reader = array_record_module.ArrayRecordReader(str(path))
      records = reader.read_all()
      reader.close()
      with open(target / path.name.replace('array_record', 'tfrecord'), 'wb') as file:
        for record in records:
          file.write(struct.pack('<QI', len(record), 0) + record + b'\0\0\0\0')
    elif path.name == 'dataset_info.json':
      info = json.loads(path.read_text())
      info['fileFormat'] = 'tfrecord'
      (target / path.name).write_text(json.dumps(info))
    else:
      (target / path.name).write_bytes(path.read_bytes())


def test_tfrecord_names_the_command_that_converts_it(squares, tmp_path, capsys):
  as_tfrecord(squares / 'squares' / '1.0.0', tmp_path / 'squares' / '1.0.0')
  with pytest.raises(ValueError, match='stored as tfrecord') as caught:
    create(config(tmp_path))
  command = str(caught.value).split('fcajax prepare ')[1].split()
  assert prepare(command) == 0
  assert '17 records' in capsys.readouterr().out
  pipeline, original = create(config(tmp_path)), create(config(squares))
  assert next(pipeline.train_iterator())['image'].shape == (4, 16, 16, 3)
  for converted, expected in zip(pipeline.evaluation_batches(), original.evaluation_batches()):
    np.testing.assert_array_equal(converted['image'], expected['image'])
  assert prepare(command) == 0
  assert 'prepared already' in capsys.readouterr().out


def test_a_short_tfrecord_is_not_converted(squares, tmp_path, capsys):
  directory = tmp_path / 'squares' / '1.0.0'
  as_tfrecord(squares / 'squares' / '1.0.0', directory)
  shard = next(directory.glob('*train.tfrecord*'))
  shard.write_bytes(shard.read_bytes()[:-10])
  assert prepare(['squares', '--data-dir', str(tmp_path)]) == 2
  assert 'cut short' in capsys.readouterr().err
  with pytest.raises(ValueError, match='stored as tfrecord'):
    create(config(tmp_path))


def test_a_builder_that_needs_tensorflow_says_so(tmp_path, capsys):
  if 'tensorflow' in sys.modules:
    pytest.skip('TensorFlow is loaded')
  builder = write_builder(tmp_path, 'Arrays', 'pixels')
  assert prepare([str(builder), '--data-dir', str(tmp_path / 'data')]) == 2
  assert "pip install 'fcajax[prepare]'" in capsys.readouterr().err


def test_an_unknown_builder_names_near_matches(tmp_path, capsys):
  assert prepare(['cifar1', '--data-dir', str(tmp_path)]) == 2
  assert 'cifar10' in capsys.readouterr().err
  assert prepare([str(tmp_path / 'none.py'), '--data-dir', str(tmp_path)]) == 2
  assert 'no such file' in capsys.readouterr().err


def test_training_never_imports_tensorflow(squares, tmp_path):
  """A TensorFlow that can be imported, but must not be, lies first on the path."""
  package = tmp_path / 'tensorflow'
  package.mkdir()
  (package / '__init__.py').write_text("raise AssertionError('TensorFlow was imported')")
  script = f'''
import sys
from fcajax import input_pipeline
from fcajax.cli import main as cli
for memory in (True, False):
  pipeline = input_pipeline.create(
      dict(source='tfds', name='squares', data_dir={str(squares)!r}, image_size=16,
           in_memory=memory),
      batch_size=4, eval_batch_size=4, seed=0, process_index=0, process_count=1)
  next(pipeline.train_iterator())
  assert sum(batch['mask'].sum() for batch in pipeline.evaluation_batches()) == 5
assert 'tensorflow' not in sys.modules
print('done')
'''
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])}
  result = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True,
                          text=True, timeout=120)
  assert result.returncode == 0 and 'done' in result.stdout, result.stderr


def test_encoded_bytes_reach_the_decoder(squares):
  source = tfds_source.load_splits(DataSettings.from_config(config(squares))).train
  data, label = source.read(3)
  with Image.open(io.BytesIO(data)) as image:
    assert image.size == (16, 16)
  assert label in (0, 1) and source.image_shape == (16, 16)
  assert source.name(3) == 'train[3]'
