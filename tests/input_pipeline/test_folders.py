"""Image folders: what their parts may be called, held-out shares, links and mistakes."""
import os

import numpy as np
import pytest

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


def test_one_level_is_split_by_class_and_seed(tmp_path):
  make_folder(tmp_path, train=10, splits=('.',))
  config = folder_config(tmp_path, validation_fraction=0.2, augment=False)
  pipeline = create(config, eval_batch_size=6)
  assert (pipeline.num_train, pipeline.num_evaluation) == (24, 6)
  held = next(iter(pipeline.evaluation_batches()))
  assert np.bincount(held['label']).tolist() == [2, 2, 2]
  trained = np.concatenate([b['image'] for b in take(pipeline.train_iterator(), 6)])
  both = np.concatenate([trained, held['image']]).reshape(30, -1)
  assert len(np.unique(both, axis=0)) == 30
  assert_same([held], [next(iter(create(config, eval_batch_size=6).evaluation_batches()))])
  other = next(iter(create(config, eval_batch_size=6, seed=1).evaluation_batches()))
  assert not np.array_equal(other['image'], held['image'])


def test_validation_folder_of_another_name(tmp_path):
  make_folder(tmp_path, 2, 1, ('training', 'check'))
  pipeline = create(folder_config(tmp_path, train_split='training', eval_split='check'))
  assert (pipeline.num_train, pipeline.num_evaluation) == (6, 3)


def test_folder_mistakes(tmp_path, folder):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    create(folder_config(tmp_path / 'nowhere'))
  with pytest.raises(ValueError, match=r'data\.root is empty'):
    create(folder_config(''))
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='no class folders'):
    create(folder_config(tmp_path / 'empty'))
  root = make_folder(tmp_path / 'a', 2, 1)
  (root / 'train' / 'dog').mkdir()
  with pytest.raises(ValueError, match=r'class folders without images .*dog'):
    create(folder_config(root))
  write_image(root / 'train' / 'dog' / '0.jpg', 0)
  with pytest.raises(ValueError, match='val/ lacks dog'):
    create(folder_config(root))
  for name in (*CLASSES, 'dog'):
    for path in (root / 'train' / name).iterdir():
      path.unlink()
  with pytest.raises(ValueError, match='no images in'):
    create(folder_config(root))
  write_image(tmp_path / 'single' / 'only' / '0.jpg', 0)
  with pytest.raises(ValueError, match="single class folder 'only'"):
    create(folder_config(tmp_path / 'single'))
  make_folder(tmp_path / 'b', 2, 1, ('learning', 'val'))
  with pytest.raises(ValueError, match='val/ but no train/'):
    create(folder_config(tmp_path / 'b'))
  make_folder(tmp_path / 'c', 2, 1, ('train', 'check'))
  with pytest.raises(ValueError, match=r"data\.eval_split='chek': .* no such folder; it has check"):
    create(folder_config(tmp_path / 'c', eval_split='chek'))
  assert 'has no folder for validation: 3 of its 6' in create(folder_config(tmp_path / 'c')).note
  make_folder(tmp_path / 'd', 2, 1, ('Test', 'set'))
  with pytest.raises(ValueError, match='Test/ but no train/'):
    create(folder_config(tmp_path / 'd'))
  (tmp_path / 'e').mkdir()
  (tmp_path / 'e' / 'train').mkdir()
  with pytest.raises(ValueError, match='no class folders'):
    create(folder_config(tmp_path / 'e'))


def test_a_class_folder_must_be_named_in_utf8(tmp_path):
  write_image(tmp_path / 'tea' / '0.jpg', 0)
  try:
    (tmp_path / os.fsdecode(b'caf\xe9')).mkdir()
  except OSError:
    pytest.skip('this file system takes names in UTF-8 only')
  with pytest.raises(ValueError, match=r'caf\\xe9.*rename'):
    create(folder_config(tmp_path))


@pytest.mark.parametrize('names', [('Train', 'VAL'), ('training', 'testing'), ('train', 'test')])
def test_splits_by_their_usual_names(tmp_path, names):
  pipeline = create(folder_config(make_folder(tmp_path, 2, 1, names)))
  assert (pipeline.num_train, pipeline.num_evaluation) == (6, 3)
  assert pipeline.class_names == list(CLASSES) and not pipeline.note


def test_classes_may_be_named_like_splits(tmp_path):
  for name in ('control', 'test'):
    for i in range(2):
      write_image(tmp_path / name / f'{i}.jpg', i)
  assert create(folder_config(tmp_path)).class_names == ['control', 'test']


def test_a_class_may_be_called_train(tmp_path):
  for name in ('bus', 'car', 'train'):
    for i in range(2):
      write_image(tmp_path / name / f'{i}.jpg', i)
  assert create(folder_config(tmp_path)).class_names == ['bus', 'car', 'train']


def test_the_training_folder_is_named_where_evaluation_has_its_own(tmp_path, folder):
  """A frequency search refuses to be scored on such a folder."""
  assert create(folder_config(folder)).train_folder == str(folder / 'train')
  root = make_folder(tmp_path, 2, 1, ('Train', 'Test'))
  assert create(folder_config(root)).train_folder == str(root / 'Train')
  assert create(folder_config(root / 'Train')).train_folder == ''


def test_links_are_followed_but_not_in_circles(tmp_path):
  root = make_folder(tmp_path / 'images', 4, 2)
  (root / 'train' / 'ant' / 'itself').symlink_to('.')
  (root / 'train' / 'ant' / 'above').symlink_to('..')
  write_image(tmp_path / 'elsewhere' / 'more' / '0.jpg', 7)
  (tmp_path / 'elsewhere' / 'back').symlink_to(root / 'train' / 'ant')
  (root / 'train' / 'bee' / 'more').symlink_to(tmp_path / 'elsewhere')
  (root / 'train' / 'bee' / 'again').symlink_to(tmp_path / 'elsewhere')
  (root / 'train' / 'cat' / '.hidden').mkdir()
  write_image(root / 'train' / 'cat' / '.hidden' / '0.jpg', 8)
  (root / 'train' / 'cat' / 'shown').symlink_to('.hidden')
  (tmp_path / 'store' / 'part').mkdir(parents=True)
  write_image(tmp_path / 'store' / 'part' / '0.jpg', 9)
  (root / 'train' / 'cat' / 'store').symlink_to(tmp_path / 'store')
  (root / 'train' / 'cat' / 'part').symlink_to(tmp_path / 'store' / 'part')
  pipeline = create(folder_config(root))
  # Of elsewhere: its own image, and the four of ant that it links to.
  assert pipeline.num_train == (12 + 1 + 4) + 1 + 1
