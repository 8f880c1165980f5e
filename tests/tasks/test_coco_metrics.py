"""COCO's metrics against pycocotools' own numbers."""
import json

import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.input_pipeline.sources.coco import open_coco
from fcajax.preprocessing.run_lengths import decode_masks, encode_masks
from fcajax.tasks.coco_metrics import (
  METRICS,
  ImageDetections,
  coco_metrics,
  result_rows,
)
from tests.helpers.coco_sets import annotation, content, square

pytest.importorskip('pycocotools')


def test_reference(shared_data):
  folder, stored = shared_data / 'coco', shared_data.parent / 'reference'
  if not (stored / 'coco_ap.json').exists():
    pytest.skip('no reference values beside the checkout')
  expected = json.loads((stored / 'coco_ap.json').read_text())
  rows = json.loads((stored / 'coco_results_instances_val.json').read_text())
  source = open_coco(folder / 'annotations' / 'instances_val.json', folder / 'val')
  truth = source.ground_truth()
  for kind, key in (('box', 'bbox'), ('mask', 'segm')):
    metrics = coco_metrics(truth, rows, kind, per_class=True)
    together = coco_metrics(truth, rows, kind, use_categories=False)
    for i, name in enumerate(METRICS):
      assert metrics[f'{kind}_{name}'] == pytest.approx(expected[key][i], abs=1e-9)
      assert together[f'{kind}_{name}'] == pytest.approx(
          expected[f'{key}_all_categories_as_one'][i], abs=1e-9)
    for name, category in zip(source.class_names, source.category_ids):
      assert metrics[f'{kind}_AP/{name}'] == pytest.approx(
          expected[f'{key}_per_category_AP'][str(category)], abs=1e-9)


def perfect(truth, category_ids):
  """The ground truth as detections."""
  detections = []
  for image in truth['images']:
    found = [a for a in truth['annotations'] if a['image_id'] == image['id']]
    size = image['height'], image['width']
    masks = np.zeros((len(found), *size), bool)
    for mask, (x, y, w, h) in zip(masks, (a['bbox'] for a in found)):
      mask[y:y + h, x:x + w] = True
    boxes = np.array([a['bbox'] for a in found], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([category_ids.index(a['category_id']) for a in found], np.int32)
    detections.append(ImageDetections(image['id'], boxes, np.ones(len(found), np.float32), labels,
                                      encode_masks(masks)))
  return detections


def test_from_detections_to_metrics(capsys):
  truth, category_ids = content(), [1, 5]
  detections = perfect(truth, category_ids)
  rows = json.loads(json.dumps(result_rows(detections, category_ids)))
  assert rows[0].keys() == {'image_id', 'category_id', 'bbox', 'score', 'segmentation'}
  assert coco_metrics(truth, rows)['box_AP'] == pytest.approx(1)
  assert coco_metrics(truth, rows, 'mask')['mask_AP'] == pytest.approx(1)
  assert capsys.readouterr().out == ''
  # Nobody finds the cat.
  metrics = coco_metrics(truth, result_rows(detections, [-1, 5]), per_class=True)
  assert metrics['box_AP'] == pytest.approx(0.5)
  assert (metrics['box_AP/cat'], metrics['box_AP/dog']) == (0, pytest.approx(1))
  one = coco_metrics(truth, rows, image_ids=[9], per_class=True)
  assert one['box_AP/cat'] == -1 and one['box_AP'] == pytest.approx(1)
  nothing = coco_metrics(truth, [])
  assert nothing['box_AP'] == nothing['box_AR100'] == 0 and len(nothing) == 12


def test_annotations_without_numbers_areas_or_outlines():
  truth = content(annotations=[{'image_id': 7, 'category_id': 1, 'bbox': [10, 5, 20, 20]},
                               annotation(9, (0, 0, 9, 9), 1, segmentation=square(0, 0, 9))])
  rows = result_rows(perfect(truth, [1, 5]), [1, 5])
  assert coco_metrics(truth, rows)['box_AP'] == pytest.approx(1)
  assert coco_metrics(truth, rows, 'mask')['mask_AR100'] == pytest.approx(1)
  assert 'id' not in truth['annotations'][0]


def test_mistakes():
  rows = result_rows(perfect(content(), [1, 5]), [1, 5])
  with pytest.raises(UserError, match='images that the annotations do not list: 8'):
    coco_metrics(content(), [{**rows[0], 'image_id': 8}])
  with pytest.raises(UserError, match="image 7 has no 'segmentation'"):
    coco_metrics(content(), [{k: v for k, v in rows[0].items() if k != 'segmentation'}], 'mask')


def test_run_length_codes_round_trip():
  masks = np.random.default_rng(0).random((3, 7, 5)) > 0.5
  codes = json.loads(json.dumps(encode_masks(masks)))
  np.testing.assert_array_equal(decode_masks(codes, (7, 5)), masks)
  assert decode_masks([], (7, 5)).shape == (0, 7, 5)
