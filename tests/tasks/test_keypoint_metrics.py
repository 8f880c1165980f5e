"""OKS, its NMS and COCO's numbers, beside the reference."""
import json

import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.preprocessing.skeleton import COCO_SIGMAS
from fcajax.tasks import keypoint_metrics as metrics
from tests.helpers import pose


@pytest.fixture(scope='module')
def stored(data_dir):
  return np.load(data_dir / 'pose_ops.npz')


def test_oks_and_its_nms(stored):
  points, areas = stored['oks/keypoints'][..., :2], stored['oks/areas']
  np.testing.assert_allclose(
      metrics.pairwise_oks(points, areas, COCO_SIGMAS), stored['oks/matrix'], atol=1e-9)
  for threshold in (0.9, 0.7, 0.3):
    kept = metrics.oks_nms(points, areas, stored['oks/scores'], COCO_SIGMAS, threshold)
    np.testing.assert_array_equal(kept, stored[f'oks/keep_{threshold}'])
  none = metrics.oks_nms(points[:0], areas[:0], stored['oks/scores'][:0], COCO_SIGMAS)
  assert none.shape == (0,)


def test_rescoring(stored):
  joint_scores = stored['oks/keypoints'][..., 2]
  np.testing.assert_allclose(
      metrics.person_scores(stored['rescore/box_score'], joint_scores), stored['rescore/score'],
      rtol=1e-12)
  assert metrics.person_scores(np.array([0.9]), np.full((1, 17), 0.2)).tolist() == [0]


def truth_of(content):
  rows = content['annotations']
  joints = np.array([row['keypoints'] for row in rows], float).reshape(len(rows), -1, 3)
  return metrics.KeypointTruth(
      np.array([row['image_id'] for row in rows]), joints,
      np.array([row['bbox'] for row in rows], float),
      np.array([row['area'] for row in rows], float),
      np.array([bool(row['iscrowd']) for row in rows]))


def results_of(rows, joints):
  return metrics.KeypointResults(
      np.array([row['image_id'] for row in rows], int),
      np.array([row['keypoints'] for row in rows], float).reshape(-1, joints, 3),
      np.array([row['score'] for row in rows], float))


def test_the_ten_numbers_of_the_reference(shared_data):
  content = json.loads((shared_data / 'coco/annotations/person_keypoints_val.json').read_text())
  rows = json.loads(pose.reference('coco_results_keypoints_val.json').read_text())
  found = metrics.coco_keypoint_metrics(truth_of(content), results_of(rows, 17), COCO_SIGMAS)
  expected = json.loads(pose.reference('coco_ap.json').read_text())
  assert list(found) == expected['order_keypoints']
  np.testing.assert_allclose(list(found.values()), expected['keypoints'], atol=1e-9)


def random_case(seed, joints=5, images=6):
  """Labelled persons with crowds and without joints, and results with ties in their scores."""
  rng = np.random.default_rng(seed)
  content = pose.annotations([], images, names=[f'joint {i}' for i in range(joints)])
  results = []
  for image in content['images']:
    for _ in range(rng.integers(0, 5)):
      box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(10, 200, 2)])
      points = rng.uniform(box[:2], box[:2] + box[2:], (joints, 2))
      seen = rng.integers(0, 3, (joints, 1)) * rng.integers(0, 5, (1, 1)).clip(0, 1)
      row = pose.person(image['id'], box.tolist(), np.concatenate([points * (seen > 0), seen], 1),
                        id=len(content['annotations']) + 1, iscrowd=int(rng.random() < 0.2),
                        num_keypoints=int((seen > 0).sum()))
      content['annotations'].append(row)
      for _ in range(rng.integers(0, 8)):
        moved = points + rng.normal(0, rng.choice([1, 5, 20]), points.shape)
        results.append({
            'image_id': image['id'], 'category_id': 1, 'score': round(rng.random(), 1),
            'keypoints': np.concatenate([moved, np.ones((joints, 1))], 1).ravel().tolist()})
  return content, results


def test_image_ids_need_not_be_those_of_the_file():
  content, results = random_case(1)
  sigmas = [0.03, 0.05, 0.06, 0.08, 0.1]
  found = metrics.coco_keypoint_metrics(truth_of(content), results_of(results, 5), sigmas)
  assert 0 < found['AP'] < 1
  for row in (*content['annotations'], *results):
    row['image_id'] = 7 * row['image_id'] + 1
  renamed = metrics.coco_keypoint_metrics(truth_of(content), results_of(results, 5), sigmas)
  assert renamed == found


def test_perfect_results_of_a_skeleton_of_ones_own():
  content, _ = random_case(2)
  truth = truth_of(content)
  rows = np.flatnonzero((truth.keypoints[:, :, 2] > 0).any(axis=1))
  results = metrics.KeypointResults(
      truth.image_ids[rows], truth.keypoints[rows], np.linspace(1, 0.5, len(rows)))
  assert metrics.coco_keypoint_metrics(truth, results, [0.05] * 5)['AP'] == pytest.approx(1)


def test_no_results_and_no_persons():
  content, results = random_case(0)
  truth, found = truth_of(content), results_of(results, 5)
  sigmas = [0.05] * 5
  nothing = metrics.coco_keypoint_metrics(truth, found.take(np.zeros(0, int)), sigmas)
  assert set(nothing.values()) == {0.0}
  crowd = metrics.KeypointTruth(
      truth.image_ids, truth.keypoints, truth.boxes, truth.areas, np.ones_like(truth.ignore))
  assert set(metrics.coco_keypoint_metrics(crowd, found, sigmas).values()) == {-1.0}


@pytest.mark.parametrize('sigmas', [(), [0.1] * 4, [0.1, 0.1, 0.1, 0.1, 0]])
def test_sigmas_that_do_not_fit(sigmas):
  content, results = random_case(0)
  with pytest.raises(UserError, match='one number above 0 for each of the 5 joints'):
    metrics.coco_keypoint_metrics(truth_of(content), results_of(results, 5), sigmas)


def test_pck():
  labelled = np.array([[[0, 0, 2], [10, 0, 1], [0, 0, 0]],
                       [[5, 5, 2], [0, 0, 0], [0, 0, 0]]], float)
  predicted = np.array([[[0, 2], [10, 2.1], [99, 99]], [[8, 5], [0, 0], [0, 0]]], float)
  share, each = metrics.pck(predicted, labelled, np.array([10.0, 20.0]))
  assert share == pytest.approx(2 / 3)
  np.testing.assert_array_equal(each, [1, 0, np.nan])
  empty = metrics.pck(predicted, labelled * 0, np.array([10.0, 20.0]))
  assert np.isnan(empty[0])
