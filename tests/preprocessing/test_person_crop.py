"""Boxes to crops and back, and skeletons."""
import json

import cv2
import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.preprocessing import person_crop
from fcajax.preprocessing.decode import decode_image
from fcajax.preprocessing.skeleton import COCO, Skeleton
from tests.helpers import pose


@pytest.fixture(scope='module')
def stored(data_dir):
  return np.load(data_dir / 'pose_ops.npz')


def matrices(stored, shape):
  return [person_crop.crop_matrix(row[:2], float(row[2]) * 200, rotation, shape)
          for row, rotation in zip(stored['crops/center_scale'], stored['crops/rotation'])]


def test_matrices(stored):
  np.testing.assert_allclose(matrices(stored, pose.SIZE), stored['crops/matrices'], atol=2e-4)
  back = [cv2.invertAffineTransform(matrix) for matrix in matrices(stored, pose.MAP)]
  np.testing.assert_allclose(back, stored['crops/heatmap_to_image'], atol=1e-4)


def test_decoded_points_in_the_image(stored):
  from fcajax.ops.heatmaps import decode_heatmaps
  found = np.asarray(decode_heatmaps(stored['decode/heatmaps'].astype(np.float32))[0])
  rows = stored['crops/center_scale'][:3]
  points = person_crop.heatmap_to_image(found, rows[:, :2], rows[:, 2] * 200, pose.MAP)
  np.testing.assert_allclose(points, stored['decode/image_xy'], atol=1e-4)


def test_crop_points_go_back_to_where_they_came_from(stored):
  # Without a rotation, heatmap_to_image undoes crop_matrix on the maps.
  row = stored['crops/center_scale'][0]
  matrix = person_crop.crop_matrix(row[:2], float(row[2]) * 200, 0.0, pose.MAP)
  points = np.array([[[100.0, 50.0], [400.0, 33.0]]])
  back = person_crop.heatmap_to_image(
      person_crop.transform_points(matrix, points), row[None, :2], row[None, 2] * 200, pose.MAP)
  np.testing.assert_allclose(back, points, atol=1e-3)


def test_boxes_are_cut_at_the_last_pixel():
  boxes = np.array([[-5, 10, 20, 10], [70, 50, 40, 40], [90, 10, 5, 5], [3, 3, 1, 1]], float)
  sizes = np.array([[60, 80]] * 4)
  clipped = person_crop.clip_boxes(boxes, sizes)
  np.testing.assert_array_equal(clipped[:2], [[0, 10, 19, 9], [70, 50, 9, 9]])
  assert clipped[2, 2] < 0 and not clipped[3, 2:].any()


@pytest.mark.parametrize('rotation', [0.0, 25.0, -70.0, 179.0])
def test_rows_that_a_crop_reads(rotation):
  image = np.random.default_rng(0).integers(0, 256, (200, 150, 3)).astype(np.uint8)
  matrix = person_crop.crop_matrix(np.array([70.0, 60.0]), 60.0, rotation, (64, 48))
  rows = person_crop.covered_rows(matrix, (64, 48), 200)
  assert rows < 130
  whole, part = (np.zeros((64, 48, 3), np.uint8) for _ in range(2))
  person_crop.warp(image, matrix, whole)
  person_crop.warp(image[:rows].copy(), matrix, part)
  np.testing.assert_array_equal(part, whole)


def test_real_crops(stored, shared_data):
  reference = np.load(pose.reference('pose.npz'))
  rows = json.loads(pose.reference('pose.json').read_text())['crops']['image_ids']
  for i, (identity, matrix) in enumerate(zip(rows, matrices(stored, pose.SIZE))):
    image = decode_image(shared_data / 'coco' / 'val' / f'{identity:012}.jpg')
    crop = np.empty((*pose.SIZE, 3), np.uint8)
    person_crop.warp(image, matrix, crop)
    difference = np.abs(crop[::4, ::4].astype(int) - reference['crops/pixels_row0_step4'][i])
    # OpenCV 4 rounds the weights of the interpolation to 1/32 pixel, OpenCV 5 does not.
    exact = int(cv2.__version__.split('.')[0]) >= 5
    assert difference.max() <= (1 if exact else 3)
    assert (difference > 0).mean() < (0.001 if exact else 0.06)


def test_skeleton_of_coco():
  limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
  found = Skeleton.of_category({'keypoints': list(COCO.names), 'skeleton': limbs})
  assert found == COCO and len(COCO.flip_pairs) == 8
  assert Skeleton.from_dict(json.loads(json.dumps(COCO.to_dict()))) == COCO


def test_skeleton_of_a_file_of_ones_own():
  names = ['tip', 'L_ear', 'R_ear', 'paw-left', 'paw-right', 'clever']
  found = Skeleton.of_category({'keypoints': names})
  assert found.flip_pairs == ((1, 2), (3, 4)) and found.sigmas == () and found.limbs == ()
  given = Skeleton.of_category(
      {'keypoints': names, 'flip_pairs': [[0, 5]], 'sigmas': [0.1] * 6})
  assert given.flip_pairs == ((0, 5),) and given.sigmas == (0.1,) * 6
  overridden = Skeleton.of_category(
      {'keypoints': names, 'flip_pairs': [[0, 5]]}, [['tip', 'L_ear']], [0.2] * 6)
  assert overridden.flip_pairs == ((0, 1),) and overridden.sigmas[0] == 0.2


@pytest.mark.parametrize('values, message', [
    ({'names': ('a', 'a')}, 'all different'),
    ({'names': ('a', 'b'), 'limbs': ((0, 2),)}, r'limbs: \[0, 2\]'),
    ({'names': ('a', 'b', 'c'), 'flip_pairs': ((0, 1), (1, 2))}, 'hold a joint twice'),
    ({'names': ('a', 'b'), 'sigmas': (0.1, 0.0)}, 'one number above 0'),
])
def test_skeletons_that_are_none(values, message):
  with pytest.raises(UserError, match=message):
    Skeleton(**values)


def test_an_unknown_joint_in_a_pair():
  with pytest.raises(UserError, match="'tail' is no joint"):
    Skeleton.of_category({'keypoints': ['a', 'b']}, [['a', 'tail']])
