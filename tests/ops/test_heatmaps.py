"""Heat maps: the published targets, loss, flip average and decoding."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.ops import heatmaps
from fcajax.preprocessing.skeleton import COCO

SIZES = {'image_size': (256, 192), 'heatmap_size': (64, 48)}


@pytest.fixture(scope='module')
def stored(data_dir):
  return np.load(data_dir / 'pose_ops.npz')


@pytest.fixture(scope='module')
def maps(stored):
  return jnp.asarray(stored['decode/heatmaps'], jnp.float32)


def test_targets_of_joints_on_and_past_every_border(stored):
  target, weight = heatmaps.heatmap_targets(
      stored['edge_targets/joints'], stored['edge_targets/visible'], **SIZES)
  np.testing.assert_allclose(target, stored['edge_targets/target'], atol=1e-7)
  np.testing.assert_array_equal(weight, stored['edge_targets/weight'])


def test_targets_of_real_crops_under_jit(stored):
  draw = jax.jit(lambda joints, visible: heatmaps.heatmap_targets(joints, visible, **SIZES))
  target, weight = draw(stored['crops/joints'], stored['crops/visible'])
  np.testing.assert_allclose(target[:2], stored['crops/targets_of_the_first_two'], atol=1e-7)
  np.testing.assert_array_equal(weight, stored['crops/target_weight'])
  np.testing.assert_allclose(target.sum((1, 2)), stored['crops/target_sums'], rtol=1e-6)


def test_a_joint_that_is_not_labelled_may_hold_anything():
  target, weight = heatmaps.heatmap_targets(
      np.array([[np.nan, np.inf], [24.0, 32.0]], np.float32), np.array([0.0, 1.0], np.float32),
      sigma=3.0, **SIZES)
  assert not target[..., 0].any() and weight.tolist() == [0, 1]
  assert target[..., 1].max() == target[8, 6, 1] == 1
  assert target[..., 1].astype(bool).sum() == (6 + 9 + 1) * (8 + 9 + 1)


def test_loss(stored):
  target, weight = heatmaps.heatmap_targets(
      stored['crops/joints'][:3], stored['crops/visible'][:3], **SIZES)
  output = (0.1 * np.random.default_rng(501).standard_normal((3, 64, 48, 17))).astype(np.float32)
  losses = [heatmaps.heatmap_loss(jnp.asarray(output), target, each).mean()
            for each in (weight, jnp.ones_like(weight))]
  np.testing.assert_allclose(losses, stored['loss/values'], rtol=1e-6)


@pytest.mark.parametrize('quarter, expected', [(False, 'decode/argmax_xy'), (True, None)])
def test_decoding(stored, maps, quarter, expected):
  found, score = jax.jit(heatmaps.decode_heatmaps, static_argnums=1)(maps, quarter)
  np.testing.assert_array_equal(score, stored['decode/max'])
  if expected:
    np.testing.assert_array_equal(found, stored[expected])
    return
  moved = np.abs(np.asarray(found) - stored['decode/argmax_xy'])
  assert set(np.unique(moved)) == {0, 0.25}


def test_decoding_moves_only_inside():
  maps = np.zeros((6, 7, 4), np.float32)
  for joint, (y, x) in enumerate(((2, 2), (2, 1), (3, 5), (3, 6))):
    maps[y, x, joint] = 1
    maps[y - 1, x, joint] = 0.5
    if x < 6:
      maps[y, x + 1, joint] = 0.5
  found, _ = heatmaps.decode_heatmaps(maps)
  assert found.tolist() == [[2.25, 1.75], [1, 2], [5.25, 2.75], [6, 3]]


def test_flip_average(stored, maps):
  back = heatmaps.flip_back(maps, COCO.flip_pairs)
  for name, value in (('flipped_back', back), ('shifted', heatmaps.shift_right(back)),
                      ('average_with_decode_maps',
                       heatmaps.flip_average(maps, maps, COCO.flip_pairs))):
    np.testing.assert_array_equal(np.ravel(value)[::53], stored[f'flip/{name}'])


def test_flip_average_of_a_mirrored_map_is_the_map(maps):
  mirrored = heatmaps.flip_back(maps, COCO.flip_pairs)
  average = heatmaps.flip_average(maps, mirrored, COCO.flip_pairs, shift=False)
  np.testing.assert_array_equal(average, maps)


@pytest.mark.parametrize('pairs', [[(0, 0)], [(0, 1), (1, 2)], [(0, 3)], [(0, 1, 2)]])
def test_pairs_that_are_none(pairs):
  with pytest.raises(UserError, match='must be two different joints of 0 to 2'):
    heatmaps.flip_permutation(3, pairs)
