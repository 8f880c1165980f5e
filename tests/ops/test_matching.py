"""Assignment to the ground truth, and sampling."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.ops.matching import (
  NEGATIVE,
  UNUSED,
  Assigner,
  assign,
  random_priority,
  sample,
  sampled_mask,
)
from tests.helpers.detection import load_operations

ARRAYS, _ = load_operations()
ASSIGNERS = {
    'rpn_mmdet': Assigner(0.7, 0.3, 'ground_truth', 0.3),
    'rpn_torchvision': Assigner(0.7, 0.3, 'candidate'),
    'rcnn_mask_mmdet': Assigner(0.5, 0.5, 'ground_truth', 0.5),
    'rcnn_faster_mmdet': Assigner(0.5, 0.5),
    'rcnn_torchvision': Assigner(0.5, 0.5),
}


def padded_truth():
  truth = jnp.asarray(ARRAYS['assign/gt'])
  return jnp.pad(truth, ((0, 5), (0, 0))), jnp.arange(len(truth) + 5) < len(truth)


@pytest.mark.parametrize('name', ASSIGNERS)
def test_assignment_is_the_references(name):
  truth, valid = padded_truth()
  codes = jax.jit(lambda boxes: assign(ASSIGNERS[name], boxes, truth, valid))(
      jnp.asarray(ARRAYS['assign/boxes']))
  np.testing.assert_array_equal(codes, ARRAYS[f'assign/{name}'])


def test_the_rules_of_low_quality_matches_differ():
  assert not np.array_equal(ARRAYS['assign/rpn_mmdet'], ARRAYS['assign/rpn_torchvision'])


@pytest.mark.parametrize('name', ASSIGNERS)
def test_without_ground_truth_everything_is_negative(name):
  boxes = jnp.asarray(ARRAYS['assign/boxes'])
  codes = assign(ASSIGNERS[name], boxes, jnp.zeros((3, 4)), jnp.zeros(3, bool))
  assert set(np.asarray(codes)) == {NEGATIVE}


def test_crowds_and_padded_boxes_take_no_part():
  truth = jnp.asarray([[0., 0., 10., 10.], [50., 50., 90., 90.]])
  boxes = jnp.asarray([[0., 0., 10., 9.], [52., 52., 60., 60.], [85., 85., 95., 95.],
                       [0., 0., 10., 10.]])
  assigner = Assigner(0.5, 0.5, crowd=0.5)
  codes = assign(assigner, boxes, truth, jnp.ones(2, bool), jnp.asarray([True, True, True, False]),
                 crowd=jnp.asarray([False, True]))
  np.testing.assert_array_equal(codes, [0, UNUSED, NEGATIVE, UNUSED])
  codes = assign(assigner._replace(crowd=None), boxes, truth, jnp.ones(2, bool),
                 crowd=jnp.asarray([False, True]))
  np.testing.assert_array_equal(codes, [0, NEGATIVE, NEGATIVE, 0])


def codes_of(positives, negatives, unused):
  codes = np.concatenate([np.arange(positives) % 7, np.full(negatives, NEGATIVE),
                          np.full(unused, UNUSED)])
  return jnp.asarray(np.random.default_rng(0).permutation(codes), jnp.int32)


@pytest.mark.parametrize('positives, negatives, expected', [
    (40, 400, (16, 48)),  # enough of both
    (5, 400, (5, 59)),  # negative ones fill up
    (40, 20, (16, 20)),  # too few
    (0, 400, (0, 64)), (40, 0, (16, 0)), (0, 0, (0, 0))])
def test_samples_are_as_many_as_asked(positives, negatives, expected):
  codes = codes_of(positives, negatives, 60)
  priority = random_priority(jax.random.key(1), codes.size)
  samples = jax.jit(sample, static_argnums=(2, 3))(codes, priority, 64, 0.25)
  assert (int(samples.positive.sum()), int((samples.codes == NEGATIVE).sum())) == expected
  assert bool(samples.positive[:expected[0]].all())
  chosen = np.asarray(samples.indices)[np.asarray(samples.valid)]
  assert len(set(chosen)) == sum(expected)
  np.testing.assert_array_equal(codes[chosen], np.asarray(samples.codes)[np.asarray(samples.valid)])
  mask = sampled_mask(samples, codes.size)
  assert set(np.flatnonzero(mask)) == set(chosen)


def test_every_candidate_is_equally_likely():
  codes = codes_of(8, 24, 4)
  def draw(key):
    samples = sample(codes, random_priority(key, codes.size), 8, 0.5)
    return sampled_mask(samples, codes.size)
  share = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000)).mean(axis=0)
  np.testing.assert_allclose(share[codes >= 0], 4 / 8, atol=0.04)
  np.testing.assert_allclose(share[codes == NEGATIVE], 4 / 24, atol=0.03)
  np.testing.assert_array_equal(share[codes == UNUSED], 0)


def test_hard_examples_come_first():
  codes = jnp.asarray([0, NEGATIVE, 1, NEGATIVE, 2, NEGATIVE, UNUSED])
  losses = jnp.asarray([1., 9., 3., 2., 2., jnp.inf, 50.])
  samples = sample(codes, losses, 4, 0.5)
  np.testing.assert_array_equal(samples.indices, [2, 4, 5, 1])


def test_all_samples():
  codes = codes_of(5, 9, 3)
  samples = sample(codes, random_priority(jax.random.key(0), codes.size), None, 0.25)
  np.testing.assert_array_equal(sampled_mask(samples, codes.size), codes != UNUSED)
