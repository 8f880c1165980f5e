"""Boxes and anchors against torchvision and mmdetection."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.ops.anchors import anchors_on_image, base_anchors, grid_anchors
from fcajax.ops.boxes import (
  box_area,
  box_levels,
  clip_boxes,
  decode_boxes,
  encode_boxes,
  pairwise_overlap,
)
from tests.helpers.detection import load_operations

ARRAYS, SETTINGS = load_operations()
SIZE = jnp.asarray(SETTINGS['coder']['image_hw'])


def stored(key):
  return jnp.asarray(ARRAYS[key])


@pytest.mark.parametrize('stage', ['rpn', 'rcnn'])
def test_encoding_and_decoding_are_the_references(stage):
  stds = SETTINGS['coder']['stds'][stage]
  boxes, deltas = stored('coder/boxes'), stored(f'coder/{stage}/deltas')
  encoded = encode_boxes(boxes, stored('coder/targets'), stds)
  np.testing.assert_allclose(encoded, ARRAYS[f'coder/{stage}/encoded'], rtol=1e-5, atol=1e-5)
  for clamp, name in (('both', 'mmdet'), ('above', 'torchvision')):
    decoded = decode_boxes(boxes, deltas, stds, clamp)
    np.testing.assert_allclose(decoded, ARRAYS[f'coder/{stage}/decoded_{name}'], rtol=1e-5,
                               atol=1e-3)
  clipped = clip_boxes(decode_boxes(boxes, deltas, stds), SIZE)
  np.testing.assert_allclose(clipped, ARRAYS[f'coder/{stage}/decoded_mmdet_clipped'], rtol=1e-5,
                             atol=1e-3)


def test_the_clamps_differ_only_where_a_box_shrinks_far():
  boxes = jnp.asarray([[10., 10., 50., 90.]])
  shrink, grow = jnp.asarray([[0, 0, -9., -9.]]), jnp.asarray([[0, 0, 9., 9.]])
  assert box_area(decode_boxes(boxes, shrink, clamp='above')) < 1e-3
  np.testing.assert_allclose(box_area(decode_boxes(boxes, shrink)), 40 * 80 * 0.016**2, rtol=1e-3)
  np.testing.assert_array_equal(decode_boxes(boxes, grow), decode_boxes(boxes, grow, clamp='above'))


def test_decoding_undoes_encoding():
  boxes, targets = stored('coder/boxes'), stored('coder/targets')
  stds = (0.1, 0.1, 0.2, 0.2)
  np.testing.assert_allclose(
      decode_boxes(boxes, encode_boxes(boxes, targets, stds), stds), targets, atol=2e-3)


def test_overlaps_are_the_references():
  a, b = stored('iou/a'), stored('iou/b')
  found = pairwise_overlap(a, b)
  np.testing.assert_allclose(found, ARRAYS['iou/mmdet'], atol=1e-6)
  # Two boxes of no area: 0 / 0 is NaN in torchvision and 0 here.
  np.testing.assert_allclose(found, np.nan_to_num(ARRAYS['iou/torchvision']), atol=1e-6)
  np.testing.assert_allclose(
      pairwise_overlap(a, b, 'iof'), ARRAYS['iou/mmdet_iof'], rtol=1e-6, atol=1e-6)


def test_crowd_iou_is_that_of_pycocotools():
  mask = pytest.importorskip('pycocotools.mask')
  def coco(boxes):
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
  a, b = stored('iou/a')[:4], stored('iou/b')[:4]
  expected = mask.iou(coco(a), coco(b), [1] * 4)
  np.testing.assert_allclose(pairwise_overlap(a, b, 'iof'), expected, atol=1e-6)


@pytest.mark.parametrize('rule', ['mmdet', 'torchvision'])
def test_levels_are_the_references(rule):
  found = box_levels(stored('levels/boxes'), rule=rule)
  np.testing.assert_array_equal(found, ARRAYS[f'levels/{rule}'])


@pytest.mark.parametrize('rule', ['mmdet', 'torchvision'])
def test_anchors_are_the_references(rule):
  meta = SETTINGS['anchors']
  for level, stride in enumerate(meta['strides']):
    base = base_anchors(8 * stride, meta['ratios'], rounded=rule == 'torchvision')
    np.testing.assert_allclose(base, ARRAYS[f'anchors/base_{rule}/{level}'], rtol=1e-6)
    for height, width in meta['sizes']:
      name = f'anchors/{height}x{width}/level{level}'
      row = meta['rows'][name]
      grid = tuple(row['grid'])
      anchors = np.asarray(jax.jit(functools.partial(grid_anchors, base, grid, (stride,) * 2))())
      assert len(anchors) == row['count']
      np.testing.assert_allclose(anchors[::row['step']], ARRAYS[f'{name}_{rule}'], rtol=1e-6)
      np.testing.assert_allclose(anchors.sum(dtype=np.float64), row[f'sum_{rule}'], rtol=1e-6,
                                 atol=1e-2)


def test_anchors_beyond_the_image_are_named():
  # 70 x 40 pixels are padded to 96 x 64: 6 x 4 positions of a stride of 16.
  inside = anchors_on_image((8, 8), 16, 3, jnp.asarray([70, 40])).reshape(8, 8, 3)
  expected = np.zeros((8, 8, 3), bool)
  expected[:6, :4] = True
  np.testing.assert_array_equal(inside, expected)


def test_areas_and_clipping():
  boxes = jnp.asarray([[0., 0., 4., 5.], [3., 3., 1., 9.], [-5., 2., 400., 300.]])
  np.testing.assert_array_equal(box_area(boxes), [20, 0, 405 * 298])
  np.testing.assert_array_equal(clip_boxes(boxes, SIZE)[2], [0, 2, 320, 256])
