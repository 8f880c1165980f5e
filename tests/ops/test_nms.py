"""Suppression: the greedy result, exactly."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.ops.nms import nms
from tests.helpers.detection import greedy, load_operations

ARRAYS, _ = load_operations()
THRESHOLDS = (0.3, 0.5, 0.7)


def kept(*args, **kwargs):
  indices, valid = nms(*args, **kwargs)
  return np.asarray(indices)[np.asarray(valid)]


@pytest.mark.parametrize('block', [16, 256])
@pytest.mark.parametrize('threshold', THRESHOLDS)
def test_kept_boxes_are_the_references(threshold, block):
  boxes = jnp.asarray(ARRAYS['nms/boxes'])
  scores, tied = jnp.asarray(ARRAYS['nms/scores']), jnp.asarray(ARRAYS['nms/scores_tied'])
  classes = jnp.asarray(ARRAYS['nms/classes'])
  np.testing.assert_array_equal(
      kept(boxes, scores, threshold, block=block), ARRAYS[f'nms/keep_{threshold}'])
  np.testing.assert_array_equal(
      kept(boxes, tied, threshold, block=block), ARRAYS[f'nms/keep_tied_{threshold}'])
  np.testing.assert_array_equal(
      kept(boxes, scores, threshold, groups=classes, block=block),
      ARRAYS[f'nms/keep_batched_{threshold}'])


@pytest.mark.parametrize('threshold', THRESHOLDS)
def test_an_iou_of_exactly_the_threshold_stays(threshold):
  boxes, scores = jnp.asarray(ARRAYS['nms/exact/boxes']), jnp.asarray(ARRAYS['nms/exact/scores'])
  np.testing.assert_array_equal(
      kept(boxes, scores, threshold), ARRAYS[f'nms/exact/keep_{threshold}'])


def test_no_boxes():
  assert kept(jnp.zeros((0, 4)), jnp.zeros(0), 0.5).size == 0
  boxes = jnp.asarray([[0., 0., 5., 5.]] * 3)
  assert kept(boxes, jnp.ones(3), 0.5, valid=jnp.zeros(3, bool)).size == 0


def test_chains_of_any_length_end_as_the_greedy_algorithm():
  # Each box overlaps the next alone: every second one stays, found after as many substitutions.
  x = jnp.arange(50.) * 4
  boxes = jnp.stack([x, 0 * x, x + 10, 0 * x + 10], axis=-1)
  np.testing.assert_array_equal(kept(boxes, -x, 0.3), np.arange(0, 50, 2))


@pytest.mark.parametrize('limit', [None, 7, 400])
def test_random_boxes_are_kept_as_by_the_greedy_algorithm(limit):
  run = jax.jit(nms, static_argnames=('limit', 'block'))
  for seed in range(6):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (300, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = rng.choice(40, 300).astype(np.float32)  # ties
    groups = rng.integers(0, 3, 300)
    valid = rng.random(300) < 0.9
    expected = greedy(boxes[valid], scores[valid], 0.4, groups[valid])
    expected = np.flatnonzero(valid)[expected][:limit]
    found, mask = run(jnp.asarray(boxes), jnp.asarray(scores), 0.4, jnp.asarray(groups),
                      jnp.asarray(valid), limit=limit, block=64)
    np.testing.assert_array_equal(np.asarray(found)[np.asarray(mask)], expected)


def test_a_batch_is_the_single_images():
  boxes, scores = jnp.asarray(ARRAYS['nms/boxes']), jnp.asarray(ARRAYS['nms/scores'])
  batch = jnp.stack([scores, scores[::-1], jnp.roll(scores, 40)])
  found, mask = jax.vmap(lambda s: nms(boxes, s, 0.5, block=32))(batch)
  for i, row in enumerate(batch):
    np.testing.assert_array_equal(found[i][mask[i]], kept(boxes, row, 0.5))


def test_a_score_that_is_not_a_number_is_left_out():
  boxes = jnp.asarray([[0., 0., 5., 5.], [10., 10., 15., 15.]])
  np.testing.assert_array_equal(kept(boxes, jnp.asarray([jnp.nan, 1.]), 0.5), [1])
