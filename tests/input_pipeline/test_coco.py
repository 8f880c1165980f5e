"""COCO's annotation files: what is read out of them, and what is wrong with them."""
import json
import pickle

import numpy as np
import pytest

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.augment.masks import rasterize
from fcajax.input_pipeline.sources.coco import open_coco
from tests.helpers.coco_sets import annotation, content, square, write_coco

mask_utils = pytest.importorskip('pycocotools.mask')


def opened(tmp_path, **changes):
  return open_coco(*write_coco(tmp_path, content(**changes)), max_missing_fraction=0.5)


def test_records(tmp_path):
  source = opened(tmp_path)
  assert len(source) == 2 and source.image_ids == [7, 9] and source.notes == ()
  assert source.class_names == ['cat', 'dog'] and source.category_ids == [1, 5]
  record = source.record(0)
  assert record.name == 'a.jpg' and record.size == (40, 60)
  np.testing.assert_array_equal(record.boxes, [[10, 5, 30, 25], [30, 10, 38, 18]])
  assert record.boxes.dtype == np.float32 and record.labels.tolist() == [0, 1]
  assert record.areas.tolist() == [400, 64] and not record.crowd.any()
  np.testing.assert_array_equal(record.outlines[1][0], square(30, 10, 8)[0])
  data, again = source.read(1)
  assert data == (tmp_path / 'images' / 'b.jpg').read_bytes() and again.image_id == 9
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy.record(0).boxes, record.boxes)
  assert copy.ground_truth()['annotations'][2]['bbox'] == [0, 0, 50, 50]


def test_run_length_codes(tmp_path):
  bitmap = np.zeros((40, 60), np.uint8)
  bitmap[5:9, 10:30] = 1
  compressed = mask_utils.encode(np.asfortranarray(bitmap))
  compressed['counts'] = compressed['counts'].decode()
  flat = bitmap.ravel(order='F')
  counts = np.diff(np.flatnonzero(np.diff(np.r_[1 - flat[0], flat, 1 - flat[-1]]))).tolist()
  plain = {'size': [40, 60], 'counts': counts if flat[0] == 0 else [0, *counts]}
  wrong = [{'size': [40, 60], 'counts': [5, 5]}, {'size': [50, 50], 'counts': [2500]},
           {'size': [40, 60], 'counts': compressed['counts'][:-3]},
           {'size': [40, 60], 'counts': '\x00~~~'}]
  source = opened(tmp_path, annotations=[
      annotation(7, (10, 5, 20, 4), segmentation=code, iscrowd=1)
      for code in (compressed, plain, *wrong)])
  record = source.record(0)
  assert record.crowd.all()
  for outline in record.outlines[:2]:
    np.testing.assert_array_equal(rasterize(outline, (40, 60))[0], bitmap)
  assert record.outlines[2:] == (None,) * 4
  assert source.notes == ('run-length codes that do not fit their image, left out: 4 (a.jpg)',)
  assert [bool(a['segmentation']) for a in source.ground_truth()['annotations']] == (
      [True] * 2 + [False] * 4)


@pytest.mark.parametrize('bad, note', [
    (annotation(7, (50, 5, 20, 20)), 'boxes that reach outside their image, clipped: 1 (a.jpg)'),
    (annotation(7, (10, 5, 0, 20)), 'boxes of no area, left out: 1 (a.jpg)'),
    (annotation(7, (10, 5, -4, 20)), 'boxes of no area, left out: 1 (a.jpg)'),
    (annotation(7, (70, 5, 10, 10)), 'boxes wholly outside their image, left out: 1 (a.jpg)'),
    (annotation(7, (10, 5, 0.2, 9)), 'boxes of less than one pixel a side, left out: 1 (a.jpg)'),
    (annotation(7, (10, float('nan'), 5, 5)),
     'boxes with a number that is not finite, left out: 1 (a.jpg)'),
    (annotation(7, (1, 2, 3, 4)) | {'bbox': [1, 2, 3]},
     "annotations without a 'bbox' of four numbers, left out: 1 (a.jpg)"),
    (annotation(7, (1, 2, 3, 4), category_id=3),
     'annotations of an unknown category, left out: 1 (a.jpg: category_id 3)'),
    (annotation(8, (1, 2, 3, 4)),
     'annotations of an image that the file does not list, left out: 1 (image_id 8)'),
    (annotation(7, (1, 2, 9, 9), segmentation=[[1, 2, 3, 4]]),
     'polygons of fewer than three points, left out: 1 (a.jpg)'),
    (annotation(7, (1, 2, 9, 9), segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
     'polygons that are no list of finite x and y, left out: 1 (a.jpg)'),
])
def test_bad_annotations_are_named_and_counted(tmp_path, bad, note):
  source = opened(tmp_path, annotations=[bad, *content()['annotations']])
  assert source.notes == (note,)
  boxes = source.record(0).boxes
  clipped, outline_lost = 'clipped' in note, 'polygons' in note
  assert len(boxes) == 2 + clipped + outline_lost
  assert boxes.min() >= 0 and boxes[:, 2].max() <= 60
  if clipped:
    assert boxes[0].tolist() == [50, 5, 60, 25]
  if outline_lost:
    assert source.record(0).outlines[0] is None
    training = source.for_training(masks=True)
    assert training.notes[-1] == 'objects without a usable outline, left out of training: 1 (a.jpg)'
  truth = source.ground_truth()['annotations']
  assert all(np.isfinite(a['bbox']).all() and min(a['bbox'][2:]) > 0 for a in truth)


def test_missing_images(tmp_path):
  files = write_coco(tmp_path, content())
  (tmp_path / 'images' / 'a.jpg').unlink()
  source = open_coco(*files, max_missing_fraction=0.5)
  assert source.notes == ('images that do not exist, left out: 1 (a.jpg)',)
  assert source.image_ids == [9]
  assert {a['image_id'] for a in source.ground_truth()['annotations']} == {9}
  with pytest.raises(NotFoundError, match=r'1 of 2 images .*a\.jpg; give the folder'):
    open_coco(*files)
  with pytest.raises(NotFoundError, match='is not a directory'):
    open_coco(files[0], tmp_path / 'nowhere')


@pytest.mark.parametrize('text, message', [
    ('', 'is empty'),
    (json.dumps(content())[:-40], 'cut short: it ends within a value'),
    ('boxes: yes', 'is not JSON'),
    ('[]', 'is a list, as files of results are'),
    ('{"images": [], "annotations": []}', "no list 'categories'"),
    (json.dumps(content(images=[])), 'lists no images'),
    (json.dumps(content(categories=[])), 'lists no categories'),
    (json.dumps(content(annotations=[{'image_id': 7, 'caption': 'a dog'}])), 'captions'),
    (json.dumps(content(categories=[{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'a'}])),
     'more than one category called'),
    (json.dumps(content(categories=[{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}])),
     "two categories of id 1: 'a' and 'b'"),
    (json.dumps(content(images=[{'id': 7, 'file_name': 'a.jpg', 'height': 40, 'width': 60},
                                {'id': 7, 'file_name': 'b.jpg', 'height': 50, 'width': 50}])),
     "the image id 7 to 'a.jpg' and to 'b.jpg'"),
    (json.dumps(content(images=[{'id': 7}])), "each needs an 'id'"),
])
def test_unusable_files_are_refused(tmp_path, text, message):
  with pytest.raises(UserError, match=message):
    open_coco(*write_coco(tmp_path, text))


def test_odd_images(tmp_path):
  entries = [{'id': 7, 'file_name': 'a.jpg'}, {'id': 7, 'file_name': 'a.jpg'},
             {'id': 9, 'file_name': 'b.jpg', 'height': 50.0, 'width': 0}]
  source = opened(tmp_path, images=entries)
  assert source.image_ids == [7] and source.record(0).size == (40, 60)
  assert [note.split(',')[0] for note in source.notes] == [
      'images that are listed twice', 'images with a size that is none']


def test_what_is_trained_on(tmp_path):
  annotations = content()['annotations'][:2] + [annotation(9, (0, 0, 9, 9), iscrowd=1)]
  source = opened(tmp_path, annotations=annotations)
  training = source.for_training(max_boxes=1)
  assert training.image_ids == [7] and len(source) == 2
  assert training.notes == (
      'images with more than max_boxes=1 objects, of which training keeps the largest: 1 '
      '(a.jpg has 2)', 'images without objects, left out of training: 1 (b.jpg)')
  with pytest.raises(UserError, match=r'none of 2 images can be trained on.*a side below 64'):
    source.for_training(min_side=64)


def test_labels_follow_the_training_set(tmp_path):
  files = write_coco(tmp_path, content())
  source = open_coco(*files, class_names=['bird', 'dog', 'cat'])
  assert source.category_ids == [-1, 5, 1] and source.record(0).labels.tolist() == [2, 1]
  with pytest.raises(UserError, match=r"lacks: dog\. For 'dog', did you mean 'dogs'"):
    open_coco(*files, class_names=['cat', 'dogs'])


def test_real_outlines_are_drawn_as_pycocotools_does(shared_data):
  folder = shared_data / 'coco'
  source = open_coco(folder / 'annotations' / 'instances_val.json', folder / 'val')
  truth = source.ground_truth()
  assert source.notes == () and len(source.class_names) == 80 and len(truth['annotations']) == 293
  by_image = {}
  for entry in truth['annotations']:
    by_image.setdefault(entry['image_id'], []).append(entry)
  for i in range(0, len(source), 3):
    record = source.record(i)
    for outline, entry in zip(record.outlines, by_image.get(record.image_id, [])):
      codes = mask_utils.frPyObjects(entry['segmentation'], *record.size)
      expected = mask_utils.decode(mask_utils.merge(codes) if isinstance(codes, list) else codes)
      drawn, top, left = rasterize(outline, record.size)
      whole = np.zeros(record.size, np.uint8)
      whole[top:top + drawn.shape[0], left:left + drawn.shape[1]] = drawn
      np.testing.assert_array_equal(whole, expected)
