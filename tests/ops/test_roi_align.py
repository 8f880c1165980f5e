"""RoIAlign, pasting of masks, mask targets and losses against torchvision and mmcv."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.ops import roi_align as roi_align_module
from fcajax.ops.boxes import box_levels
from fcajax.ops.detection_losses import binary_cross_entropy, cross_entropy, smooth_l1
from fcajax.ops.masks import mask_targets, paste_mask
from fcajax.ops.roi_align import multilevel_roi_align, roi_align
from tests.helpers.detection import load_operations

ARRAYS, SETTINGS = load_operations()
CASES = {'7_sr2': (7, 2, True), '7_sr0': (7, 0, True), '14_sr2': (14, 2, True),
         '14_sr0': (14, 0, True), '7_sr2_not_aligned': (7, 2, False)}


def align_batch(features, rois, size, ratio, aligned):
  """`roi_align` of rows (image, x1, y1, x2, y2)."""
  boxes, image = jnp.asarray(rois[:, 1:]), rois[:, 0].astype(int)
  run = jax.jit(functools.partial(
      roi_align, output_size=size, scale=1 / 8, sampling_ratio=ratio, aligned=aligned))
  return sum(run(f, boxes, valid=jnp.asarray(image == i)) for i, f in enumerate(features))


@pytest.mark.parametrize('case', CASES)
def test_features_of_boxes_are_the_references(case):
  found = align_batch(jnp.asarray(ARRAYS['roi_align/features']), ARRAYS['roi_align/rois'],
                      *CASES[case])
  np.testing.assert_allclose(found, ARRAYS[f'roi_align/out_{case}'], atol=1e-5)


def random_boxes(rng, number, width, height):
  """Boxes of all shapes, some beyond the image, in pixels."""
  corner = rng.uniform(-0.1, 0.9, (number, 2)) * (width, height)
  extent = rng.uniform(0.02, 1, (number, 2)) ** 2 * (width, height)
  return jnp.asarray(np.concatenate([corner, corner + extent], axis=1), jnp.float32)


def test_windows_and_chunks_change_nothing(monkeypatch):
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.standard_normal((40, 70, 3)), jnp.float32)
  boxes, valid = random_boxes(rng, 50, 560, 320), jnp.asarray(rng.random(50) < 0.8)

  def run(f):
    return roi_align(f, boxes, 7, 1 / 8, 0, True, valid)
  def gradient():
    return jax.jit(jax.grad(lambda f: (run(f) ** 2).sum()))(features)
  monkeypatch.setattr(roi_align_module, 'WINDOWS', ())
  whole, whole_gradient = run(features), gradient()
  monkeypatch.setattr(roi_align_module, 'WINDOWS', (8, 20))
  monkeypatch.setattr(roi_align_module, 'chunk_size', lambda: 7)
  np.testing.assert_allclose(run(features), whole, atol=1e-5)
  np.testing.assert_allclose(gradient(), whole_gradient, atol=1e-4)


def test_bfloat16_features_are_summed_in_float32():
  features = jnp.asarray(ARRAYS['roi_align/features'], jnp.bfloat16)
  found = align_batch(features, ARRAYS['roi_align/rois'], 7, 2, True)
  assert found.dtype == jnp.bfloat16
  expected = align_batch(features.astype(jnp.float32), ARRAYS['roi_align/rois'], 7, 2, True)
  # One rounding of the weights and one of the result.
  np.testing.assert_allclose(
      found.astype(jnp.float32), expected, atol=2**-7 * np.abs(expected).max())


def test_the_gradient_reaches_the_features_and_no_box():
  features, boxes = jnp.ones((6, 8, 2)), jnp.asarray([[3., 4., 30., 33.]])
  gradient, of_boxes = jax.jit(jax.grad(
      lambda f, b: roi_align(f, b, 2, 1 / 8).sum(), argnums=(0, 1)))(features, boxes)
  # Every output is an average with weights of sum 1: 4 bins, 2 channels.
  np.testing.assert_allclose(gradient.sum(), 8, rtol=1e-5)
  np.testing.assert_array_equal(of_boxes, 0)


@pytest.mark.parametrize('rule', ['mmdet', 'torchvision'])
def test_each_box_comes_from_its_level(rule):
  rng = np.random.default_rng(0)
  pyramid = [jnp.asarray(rng.standard_normal((1, s, s, 3)), jnp.float32) for s in (80, 40, 20, 10)]
  boxes = jnp.asarray(ARRAYS['levels/boxes'][:8])
  levels = box_levels(boxes, rule=rule)
  found = jax.jit(lambda *p: multilevel_roi_align(
      p, (4, 8, 16, 32), boxes[None], 7, 2, level_rule=rule, valid=jnp.arange(8)[None] < 7))(
          *pyramid)
  align = jax.jit(functools.partial(roi_align, output_size=7, sampling_ratio=2))
  for i, level in enumerate(levels[:7]):
    scale = 1 / (4 * 2 ** int(level))
    expected = align(pyramid[level][0], boxes[i:i + 1], scale=scale)
    np.testing.assert_allclose(found[0, i], expected[0], atol=1e-5)
  np.testing.assert_array_equal(found[0, 7], 0)


@pytest.mark.parametrize('rule', ['mmdet', 'torchvision'])
def test_pasted_masks_are_the_references(rule):
  size = tuple(SETTINGS['paste']['image_hw'])
  rows = SETTINGS['paste']['mmdet_rows'] if rule == 'mmdet' else range(7)
  for row in rows:
    pasted = paste_mask(ARRAYS['paste/masks'][row], ARRAYS['paste/boxes'][row], size, rule)
    np.testing.assert_allclose(pasted, ARRAYS[f'paste/{rule}'][row], atol=1e-3)
    np.testing.assert_array_equal(
        np.packbits(pasted >= 0.5, axis=-1), ARRAYS[f'paste/{rule}_bits'][row])


def mask_inputs():
  bits = np.unpackbits(ARRAYS['loss/mask/gt_bits'], axis=-1)[..., :90]
  regions = jnp.tile(jnp.asarray([0., 0., 90., 70.]), (3, 1))
  return jnp.asarray(bits), regions, jnp.asarray(ARRAYS['loss/mask/boxes']), jnp.asarray(
      ARRAYS['loss/mask/gt_index'])


def test_mask_targets_are_the_references():
  found = mask_targets(*mask_inputs(), 28)
  expected = np.unpackbits(ARRAYS['loss/mask/targets_mmdet_bits'], axis=-1)[..., :28]
  np.testing.assert_array_equal(found, expected)
  fractions = mask_targets(*mask_inputs(), 28, 0, False, None)
  np.testing.assert_allclose(fractions, ARRAYS['loss/mask/targets_torchvision'], atol=1e-3)


def test_masks_cut_to_the_ground_truth_give_the_same_targets():
  masks, _, boxes, index = mask_inputs()
  # The part of the image from (10, 5) to (80, 65), at one bit a pixel.
  regions = jnp.tile(jnp.asarray([10., 5., 80., 65.]), (3, 1))
  inside = boxes.at[:, :2].max(jnp.asarray([12., 7.])).at[:, 2:].min(jnp.asarray([78., 63.]))
  whole = mask_targets(masks, jnp.tile(jnp.asarray([0., 0., 90., 70.]), (3, 1)), inside, index, 28)
  np.testing.assert_array_equal(
      mask_targets(masks[:, 5:65, 10:80], regions, inside, index, 28), whole)


def test_losses_are_the_references():
  def stored(key):
    return jnp.asarray(ARRAYS[f'loss/{key}'])
  losses = SETTINGS['losses']
  positive = stored('rpn/positive')
  number = len(positive)
  entropy = binary_cross_entropy(stored('rpn/logits'), positive).sum() / number
  np.testing.assert_allclose(entropy, losses['rpn_cls_mmdet'], rtol=1e-6)
  difference = (stored('rpn/deltas') - stored('rpn/targets')) * positive[:, None]
  for rule, beta in (('mmdet', 0), ('torchvision', 1 / 9)):
    np.testing.assert_allclose(
        smooth_l1(difference, beta).sum() / number, losses[f'rpn_bbox_{rule}'], rtol=1e-6)
  np.testing.assert_allclose(
      cross_entropy(stored('rcnn/logits'), stored('rcnn/labels')).mean(), losses['rcnn_cls_mmdet'],
      rtol=1e-6)
  rng = np.random.default_rng(SETTINGS['loss_mask']['logits_seed'])
  logits = 2 * rng.standard_normal((6, 80, 28, 28)).astype(np.float32)
  chosen = jnp.asarray(logits[np.arange(6), ARRAYS['loss/mask/labels']])
  for rule, options in (('mmdet', ()), ('torchvision', (0, False, None))):
    targets = mask_targets(*mask_inputs(), 28, *options)
    np.testing.assert_allclose(
        binary_cross_entropy(chosen, targets).mean(), losses[f'mask_{rule}'], rtol=1e-5)
