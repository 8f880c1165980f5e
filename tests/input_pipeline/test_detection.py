"""Images with boxes through the whole pipeline: orders, shapes, notes, resuming."""
import numpy as np
import pytest

from fcajax import input_pipeline
from fcajax.errors import UserError
from fcajax.input_pipeline.detection_settings import DetectionSettings
from tests.helpers.coco_sets import annotation, content, square, write_coco, write_images

pytest.importorskip('pycocotools')
SMALL = {'source': 'coco', 'short_side': 32, 'long_side': 64, 'divisor': 16, 'max_boxes': 4,
         'mask_size': 8, 'masks': 'box', 'train_annotations': 'boxes.json',
         'train_images': 'images', 'eval_annotations': '', 'max_corrupt_fraction': 0.3}


def many(count=11):
  """Landscapes and portraits with a box each; the last one has none."""
  images, annotations = [], []
  for i in range(count):
    height, width = (40, 60 + i) if i % 3 else (60 + i, 40)
    images.append({'id': 100 + i, 'file_name': f'{i}.png', 'height': height, 'width': width})
    if i < count - 1:
      annotations.append(annotation(100 + i, (3, 4, 20, 10 + i), 1 + 4 * (i % 2),
                                    segmentation=square(3, 4, 10 + i)))
  return content(images=images, annotations=annotations)


@pytest.fixture
def root(tmp_path):
  values = many()
  write_coco(tmp_path, values)
  write_images(tmp_path / 'images', {
      image['file_name']: (image['height'], image['width']) for image in values['images']})
  return tmp_path


def create(root, batch_size=4, seed=0, process=(0, 1), **changes):
  return input_pipeline.create({**SMALL, 'root': str(root), **changes}, batch_size=batch_size,
                               eval_batch_size=4, seed=seed, process_index=process[0],
                               process_count=process[1])


def test_batches_have_one_shape_each_and_resume(root):
  pipeline = create(root, eval_annotations='boxes.json', eval_images='images')
  assert (pipeline.num_train, pipeline.num_evaluation) == (10, 11)
  assert pipeline.note == 'training: images without objects, left out of training: 1 (10.png)'
  assert pipeline.class_names == ['cat', 'dog']
  iterator = pipeline.train_iterator()
  batches = [next(iterator) for _ in range(8)]
  assert {batch['image'].shape[1:3] for batch in batches} == {(32, 64), (48, 32), (64, 32)}
  for batch in batches:
    assert batch['image'].shape[0] == 4 and batch['valid'].sum() == 4
    assert batch['masks'].shape == (4, 4, 8, 8) and batch['masks'][:, 0].any((1, 2)).all()
    assert (batch['boxes'][:, 0, 2:] > batch['boxes'][:, 0, :2]).all()
  assert {int(i) for batch in batches for i in batch['index']} == set(range(10))
  again = create(root, eval_annotations='boxes.json', eval_images='images').train_iterator()
  again.set_state({**iterator.get_state(), 'next_batch': 5})
  for expected in batches[5:]:
    batch = next(again)
    for key in expected:
      np.testing.assert_array_equal(batch[key], expected[key])
  shares = [create(root, process=(i, 2), eval_annotations='boxes.json',
                   eval_images='images').train_iterator() for i in range(2)]
  for expected in batches[:3]:
    parts = [next(share) for share in shares]
    np.testing.assert_array_equal(parts[0]['boxes'], expected['boxes'][::2])
    np.testing.assert_array_equal(parts[1]['image'], expected['image'][1::2])


def test_evaluation_holds_every_image_once(root):
  pipeline = create(root, eval_annotations='boxes.json', eval_images='images')
  data = pipeline.data_set
  seen = []
  for batch in pipeline.evaluation_batches():
    assert 'masks' not in batch and set(batch['mask']) <= {0, 1}
    for index, mask, size in zip(batch['index'], batch['mask'], batch['original_size']):
      if mask:
        seen.append(data.image_ids[index])
        image = next(i for i in data.ground_truth()['images'] if i['id'] == seen[-1])
        assert size.tolist() == [image['height'], image['width']]
  assert sorted(seen) == list(range(100, 111)) and data.category_ids == [1, 5]


def test_images_are_held_out_where_there_is_no_evaluation_file(root):
  pipeline = create(root, validation_fraction=0.2)
  assert pipeline.num_evaluation == 2
  assert '2 of 11 images are held out' in pipeline.note
  truth = pipeline.data_set.ground_truth()
  assert [image['id'] for image in truth['images']] == pipeline.data_set.image_ids
  assert {a['image_id'] for a in truth['annotations']} <= set(pipeline.data_set.image_ids)
  other = create(root, validation_fraction=0.2, seed=3)
  assert other.data_set.image_ids != pipeline.data_set.image_ids


def test_damaged_images_are_skipped_and_counted(root):
  (root / 'images' / '4.png').write_bytes(b'no image')
  write_images(root / 'images', {'5.png': (30, 30)})
  pipeline = create(root, eval_annotations='boxes.json', eval_images='images')
  iterator = pipeline.train_iterator()
  indices = {int(i) for _ in range(6) for i in next(iterator)['index']}
  assert indices == set(range(10)) - {4, 5}
  assert pipeline.corrupt_files() == ['4.png', '5.png']
  with pytest.raises(UserError, match=r'more than data\.max_corrupt_fraction=0\.01 allows'):
    strict = create(root, max_corrupt_fraction=0.01).train_iterator()
    for _ in range(6):
      next(strict)


def test_representations(root):
  common = {'eval_annotations': 'boxes.json', 'eval_images': 'images', 'masks': 'none'}
  batch = next(create(root, representation='dct', normalization='none', enlarge=2, dct_on='host',
                      **common).train_iterator())
  assert batch['image'].dtype == np.int16 and batch['image'].shape[1:] in {
      (8, 16, 24), (16, 8, 24), (8, 12, 24), (12, 8, 24)}
  planes = next(create(root, host_format='420', **common).train_iterator())
  assert planes['image'].ndim == 3 and planes['image'].dtype == np.uint8


@pytest.mark.parametrize('change, message', [
    ({'masks': 'polygons'}, r"data\.masks='polygons' is unknown; use one of"),
    ({'max_boxes': 0}, 'above 0'), ({'long_side': 20}, r'at least data\.short_side=32'),
    ({'flip': 2}, r'must lie in 0\.\.1'), ({'bucket_aspects': (0.5,)}, 'at least 1'),
    ({'crop_area': (0.1, 1)}, r'unknown key data\.crop_area'),
    ({'root': '', 'train_images': ''}, 'needs a JSON file and a folder of images'),
    ({'source': 'voc', 'root': ''}, r'needs --config\.data\.root'),
    ({'train_annotations': 'none.json'}, 'does not exist')])
def test_wrong_settings(root, change, message):
  with pytest.raises(UserError, match=message):
    create(**{'root': root, **change})


def test_published_sizes_are_the_default():
  assert DetectionSettings().image_size == (800, 1344)
  assert DetectionSettings(enlarge=2).image_size == (1600, 2688)
