"""Batches: order, exact resume, sharding, folders, digits, corrupt files."""
import io
import json

import jax
import ml_collections
import numpy as np
import psutil
import pytest
from PIL import Image

from fcajax.input_pipeline import classification, memory
from fcajax.input_pipeline.normalization import make_preprocessing
from fcajax.input_pipeline.reading import CorruptDataError
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources import base as sources
from fcajax.input_pipeline.sources import digits
from tests.helpers.folders import (
  CLASSES,
  assert_same,
  create,
  folder_config,
  make_folder,
  take,
  write_image,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return make_folder(tmp_path_factory.mktemp('folder'))


def test_batches_of_a_folder(folder):
  pipeline = create(ml_collections.ConfigDict(folder_config(folder)))
  assert (pipeline.num_train, pipeline.num_evaluation, pipeline.num_classes) == (18, 9, 3)
  assert pipeline.class_names == list(CLASSES) and pipeline.device_augment is None
  assert pipeline.preprocessing.image_size == 24
  batch = next(pipeline.train_iterator())
  assert batch['image'].shape == (4, 24, 24, 3) and batch['image'].dtype == np.uint8
  assert batch['label'].shape == (4,) and batch['label'].dtype == np.int32
  assert pipeline.corrupt_files() == []


def test_order_depends_on_the_seed_alone(folder):
  first = take(create(folder_config(folder)).train_iterator(), 12)
  again = take(create(folder_config(folder, threads=3, prefetch=4)).train_iterator(), 12)
  assert_same(first, again)
  other = take(create(folder_config(folder), seed=1).train_iterator(), 12)
  assert any((a['label'] != b['label']).any() for a, b in zip(first, other))


def test_every_epoch_has_every_image_and_another_order(folder):
  pipeline = create(folder_config(folder, augment=False), batch_size=6)
  batches = take(pipeline.train_iterator(), 6)
  epochs = [np.concatenate([b['image'] for b in batches[i:i + 3]]).reshape(18, -1) for i in (0, 3)]
  for epoch in epochs:
    assert len(np.unique(epoch, axis=0)) == 18
  assert not np.array_equal(*epochs)


def test_resume_is_exact(folder):
  expected = take(create(folder_config(folder)).train_iterator(), 9)
  iterator = create(folder_config(folder)).train_iterator()
  take(iterator, 4)
  state = json.loads(json.dumps(iterator.get_state()))
  take(iterator, 2)
  iterator.set_state(state)
  assert_same(take(iterator, 5), expected[4:])
  iterator.close()
  fresh = create(folder_config(folder)).train_iterator()
  fresh.set_state(state)
  assert fresh.get_state() == state
  assert_same(take(fresh, 5), expected[4:])


def test_worker_processes_change_nothing(folder):
  expected = take(create(folder_config(folder)).train_iterator(), 6)
  iterator = create(folder_config(folder, workers=2)).train_iterator()
  iterator.set_state({**iterator.get_state(), 'next_batch': 2})
  assert_same(take(iterator, 4), expected[2:])
  assert iterator.get_state()['next_batch'] == 6
  iterator.close()


def test_a_loader_process_that_dies_is_named(folder):
  iterator = create(folder_config(folder, workers=1)).train_iterator()
  next(iterator)
  for child in psutil.Process().children(recursive=True):
    if 'resource_tracker' not in ' '.join(child.cmdline()):
      child.kill()
  with pytest.raises(OSError, match=r'data\.workers=1 ended .*data\.workers=0'):
    for _ in range(50):
      next(iterator)
  # Threads can go on from the same place.
  following = create(folder_config(folder)).train_iterator()
  following.set_state(iterator.get_state())
  assert next(following)['image'].shape == (4, 24, 24, 3)


def test_a_state_of_another_order_is_refused(folder):
  state = create(folder_config(folder)).train_iterator().get_state()
  other = create(folder_config(folder), batch_size=6).train_iterator()
  with pytest.raises(ValueError, match='batch_size: 4 then, 6 now'):
    other.set_state(state)


def test_processes_share_out_the_same_global_batch(folder):
  whole = take(create(folder_config(folder)).train_iterator(), 5)
  parts = [take(create(folder_config(folder), process=(p, 2)).train_iterator(), 5)
           for p in range(2)]
  for batch, *shares in zip(whole, *parts):
    for key in batch:
      merged = np.stack([share[key] for share in shares], 1).reshape(batch[key].shape)
      np.testing.assert_array_equal(merged, batch[key])


@pytest.mark.parametrize('processes', (1, 2, 4))
def test_evaluation_covers_every_image_once(folder, processes):
  shards = [list(create(folder_config(folder), eval_batch_size=8,
                        process=(p, processes)).evaluation_batches()) for p in range(processes)]
  assert {len(shard) for shard in shards} == {2}
  batches = [batch for shard in shards for batch in shard]
  assert all(len(batch['mask']) == 8 // processes for batch in batches)
  real = np.concatenate([b['image'][b['mask'] == 1] for b in batches])
  assert len(real) == 9 and len(np.unique(real.reshape(9, -1), axis=0)) == 9
  labels = np.concatenate([b['label'][b['mask'] == 1] for b in batches])
  assert np.bincount(labels).tolist() == [3, 3, 3]
  padding = np.concatenate([b['image'][b['mask'] == 0] for b in batches])
  assert not padding.any()


def test_batches_of_one_image(folder):
  pipeline = create(folder_config(folder, augment=False), batch_size=1)
  seen = np.concatenate([b['image'] for b in take(pipeline.train_iterator(), 18)])
  assert len(np.unique(seen.reshape(18, -1), axis=0)) == 18


def test_a_split_without_one_good_image_stops_the_run(tmp_path):
  root = make_folder(tmp_path, 2, 1)
  for path in (root / 'val').rglob('*.*'):
    path.write_text('text')
  pipeline = create(folder_config(root, max_corrupt_fraction=1))
  with pytest.raises(CorruptDataError, match='3 of 3 evaluation images'):
    list(pipeline.evaluation_batches())
  with pytest.raises(CorruptDataError, match='3 of 3 evaluation images'):
    create(folder_config(root, max_corrupt_fraction=1, in_memory=True))


def spoil(root):
  """A text file named .jpg and a truncated JPEG, two of the six training images of ant and bee."""
  (root / 'train' / 'ant' / '0.jpg').write_text('this is a text file, not a photograph')
  path = root / 'train' / 'bee' / '2.jpg'
  path.write_bytes(path.read_bytes()[:200])
  return ['ant/0.jpg', 'bee/2.jpg']


@pytest.mark.parametrize('values', ({}, {'in_memory': True, 'augment': False}))
def test_corrupt_files_are_named_skipped_and_counted(tmp_path, caplog, values):
  names = spoil(make_folder(tmp_path))
  pipeline = create(folder_config(tmp_path, max_corrupt_fraction=0.2, **values), batch_size=6)
  with caplog.at_level('WARNING'):
    batches = take(pipeline.train_iterator(), 6)
  assert pipeline.corrupt_files() == names
  if not values:
    assert all(sum(name in record.getMessage() for record in caplog.records) == 1 for name in names)
    assert 'not an image' in caplog.text
  assert all(batch['image'].reshape(6, -1).any(1).all() for batch in batches)


def test_too_many_corrupt_files_stop_the_run(tmp_path):
  names = spoil(make_folder(tmp_path))
  pipeline = create(folder_config(tmp_path, max_corrupt_fraction=0.1))
  with pytest.raises(CorruptDataError, match='max_corrupt_fraction') as caught:
    take(pipeline.train_iterator(), 10)
  assert all(name in str(caught.value) for name in names)
  with pytest.raises(CorruptDataError, match='max_corrupt_fraction'):
    create(folder_config(tmp_path, max_corrupt_fraction=0.1, in_memory=True))


def test_a_folder_of_text_files_stops_at_once(tmp_path):
  for name in CLASSES:
    for i in range(40):
      path = tmp_path / name / f'{i}.jpg'
      path.parent.mkdir(exist_ok=True)
      path.write_text('text')
  with pytest.raises(CorruptDataError, match='cannot be read'):
    next(create(folder_config(tmp_path, max_corrupt_fraction=1)).train_iterator())


def test_corrupt_validation_images_are_masked(tmp_path):
  root = make_folder(tmp_path)
  (root / 'val' / 'ant' / '0.jpg').write_bytes(b'')
  pipeline = create(folder_config(root, max_corrupt_fraction=0.2))
  batches = list(pipeline.evaluation_batches())
  assert sum(b['mask'].sum() for b in batches) == 8 and pipeline.corrupt_files() == ['ant/0.jpg']
  assert not batches[0]['image'][0].any() and batches[0]['mask'][0] == 0
  strict = create(folder_config(root))
  with pytest.raises(CorruptDataError, match='1 of 9 evaluation images'):
    list(strict.evaluation_batches())


def test_digits():
  config = {'source': 'digits', 'image_size': 32, 'resize_size': 32, 'validation_fraction': 0.2,
            'crop_padding': 2}
  pipeline = create(config, batch_size=64, eval_batch_size=100)
  assert pipeline.num_train + pipeline.num_evaluation == 1797
  assert 355 <= pipeline.num_evaluation <= 363 and pipeline.class_names == list('0123456789')
  counts = sum(np.bincount(b['label'][b['mask'] > 0], minlength=10)
               for b in pipeline.evaluation_batches())
  assert counts.min() >= 34
  images = next(pipeline.train_iterator())['image']
  assert images.shape == (64, 32, 32, 3) and images.max() > 200 and images.min() == 0
  # A stroke touches no border, so a shifted digit keeps its ink unless it was mirrored or scaled.
  augmented = np.asarray(pipeline.device_augment(jax.random.key(0), images))
  assert augmented.shape == images.shape and augmented.dtype == np.uint8
  for image, result in zip(images[:8], augmented[:8]):
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = [padded[y:y + 32, x:x + 32] for y in range(9) for x in range(9)]
    shifted = [np.array_equal(np.where(window, result, 0), result) for window in windows]
    assert any(shifted)


def test_digits_are_those_of_scikit_learn():
  datasets = pytest.importorskip('sklearn.datasets')
  expected = datasets.load_digits()
  images, labels = digits.read_digits()
  np.testing.assert_array_equal(images, expected.images)
  np.testing.assert_array_equal(labels, expected.target)


def test_in_memory_decodes_once_and_crops_on_the_device(folder):
  pipeline = create(folder_config(folder, in_memory=True))
  batch = next(pipeline.train_iterator())
  # The images are about 40 x 31: stored at their own resolution, above evaluation's 27.
  assert batch['image'].shape == (4, 31, 31, 3)
  assert pipeline.device_augment(jax.random.key(0), batch['image']).shape == (4, 24, 24, 3)
  on_disk = list(create(folder_config(folder)).evaluation_batches())
  assert_same(list(pipeline.evaluation_batches()), on_disk)


def test_auto_keeps_only_images_of_the_right_size_in_memory(folder):
  class Files:
    image_shape = (8, 8)

    def __len__(self):
      return 4

    def name(self, index):
      return str(index)

    def read(self, index):
      return np.zeros((8, 8, 3), np.uint8), index

  splits = sources.Splits(Files(), Files(), ['a', 'b'])
  for size, expected in ((8, True), (16, False)):
    settings = DataSettings(image_size=size)
    assert memory.is_wanted(splits, settings, make_preprocessing(settings)) == expected
  larger = create({'source': 'digits', 'image_size': 48, 'resize_size': 48, 'crop_padding': 2})
  assert larger.device_augment is not None
  assert next(larger.train_iterator())['image'].shape == (4, 48, 48, 3)
  with pytest.raises(ValueError, match='crop_padding is for in-memory sets'):
    create(folder_config(folder, crop_padding=2))


def test_what_does_not_fit_in_memory_is_refused(folder):
  with pytest.raises(ValueError, match='in_memory=False'):
    create(folder_config(folder, in_memory=True, image_size=300_000))


def test_without_augmentation_training_images_are_evaluation_images(folder):
  pipeline = create(folder_config(folder, augment=False), batch_size=18)
  batch = next(pipeline.train_iterator())
  memory = create(folder_config(folder, augment=False, in_memory=True), batch_size=18)
  assert memory.device_augment is None
  assert_same([batch], [next(memory.train_iterator())])


@pytest.mark.parametrize('values, message', (
  ({'image_sise': 32}, "did you mean 'image_size'"), ({'source': 'web'}, "'web'"),
  ({'crop_area': (0.5, 0.1)}, 'crop_area'), ({'crop_ratio': (0, 1)}, 'crop_ratio'),
  ({'prefetch': 0}, 'prefetch'), ({'workers': -1}, 'workers'), ({'in_memory': 'yes'}, 'in_memory'),
  ({'max_corrupt_fraction': 2}, 'max_corrupt_fraction'),
  ({'validation_fraction': 1.5}, 'validation_fraction'),
  ({'image_size': 1.5}, 'image_size=1.5 must be'), ({'image_size': 'abc'}, "image_size='abc' must"),
  ({'image_size': (32, 0)}, 'image_size'), ({'image_size': (8, 8, 8)}, 'image_size')))
def test_wrong_settings(tmp_path, values, message):
  write_image(tmp_path / 'a' / '0.jpg', 0)
  write_image(tmp_path / 'b' / '0.jpg', 1)
  with pytest.raises(ValueError, match=message):
    create(folder_config(tmp_path, **values))


def test_batch_sizes_must_fit_the_processes(folder):
  with pytest.raises(ValueError, match=r'batch_size=5 .*2 processes'):
    create(folder_config(folder), batch_size=5, process=(0, 2))
  with pytest.raises(ValueError, match='process_index=2'):
    create(folder_config(folder), process=(2, 2))


def test_images_in_memory_are_checked():
  with pytest.raises(ValueError, match='uint8'):
    sources.ArraySource(np.zeros((2, 4, 4, 3)), [0, 1])
  with pytest.raises(ValueError, match='2 images'):
    sources.ArraySource(np.zeros((2, 4, 4, 3), np.uint8), [0])


def test_encoded_photographs_as_tfds_stores_them(shared_data):
  config = {'source': 'tfds', 'name': 'imagenette64', 'data_dir': str(shared_data / 'tfds'),
            'image_size': 64, 'resize_size': 64}
  pipeline = create(config, batch_size=32)
  assert pipeline.num_classes == 10 and pipeline.class_names[0] == 'tench'
  batch = next(pipeline.train_iterator())
  assert batch['image'].shape == (32, 64, 64, 3) and 60 < batch['image'].mean() < 180
  source = classification.load_splits(DataSettings.from_config(config), 0).evaluation
  with Image.open(io.BytesIO(source.read(0)[0])) as image:
    assert image.format == 'JPEG'
