"""Pictures of detections."""
import numpy as np
import pytest

from fcajax.analysis.draw_detections import draw_detections, label_color, picture_grid

NAMES = ['cat', 'dog']
GREY = np.full((100, 120, 3), 128, np.uint8)


def drawn(boxes, labels, **other):
  return draw_detections(GREY, np.array(boxes, np.float32).reshape(-1, 4),
                         np.array(labels, np.int32), NAMES, **other)


def test_boxes_have_the_color_of_their_label_and_a_name():
  picture = drawn([[20, 40, 60, 80]], [1])
  assert picture.shape == GREY.shape and (GREY == 128).all()
  for y, x in ((40, 50), (80, 30), (60, 20), (60, 60)):
    assert tuple(picture[y, x]) == label_color(1)
  assert (picture[45:75, 25:55] == 128).all() and (picture[:, 80:] == 128).all()
  name = picture[24:40, 20:50].reshape(-1, 3)
  assert len(np.unique(name, axis=0)) > 2  # the ground and the letters


def test_the_surest_is_on_top_and_weak_ones_are_left_out():
  box = [20, 40, 60, 80]
  both = drawn([box, box], [0, 1], scores=np.array([0.4, 0.9], np.float32))
  assert tuple(both[60, 20]) == label_color(1)
  weak = drawn([box], [0], scores=np.array([0.2], np.float32), min_score=0.5)
  np.testing.assert_array_equal(weak, GREY)


def test_boxes_at_and_beyond_the_border_and_of_no_area():
  picture = drawn([[-10, -5, 300, 90], [5, 5, 5, 9], [np.nan, 0, 1, 1]], [0, 1, 1])
  assert tuple(picture[89, 60]) != (128, 128, 128) or tuple(picture[90, 60]) == label_color(0)
  np.testing.assert_array_equal(drawn([], []), GREY)


def test_masks_are_tinted_inside_and_outlined():
  run_lengths = pytest.importorskip('fcajax.preprocessing.run_lengths')
  masks = np.zeros((1, 100, 120), bool)
  masks[0, 42:100, 22:58] = True
  picture = drawn([[20, 40, 60, 100]], [0], masks=masks)
  assert tuple(picture[70, 22]) == label_color(0)  # the edge
  inside = picture[70, 40]
  assert not (inside == 128).all() and tuple(inside) != label_color(0)
  assert tuple(picture[99, 40]) == label_color(0)  # the edge at the image's border
  pytest.importorskip('pycocotools')
  coded = drawn([[20, 40, 60, 100]], [0], masks=run_lengths.encode_masks(masks))
  np.testing.assert_array_equal(coded, picture)


def test_grid():
  tall = np.zeros((50, 25, 3), np.uint8)
  grid = picture_grid([[GREY, GREY], [tall]], width=60)
  assert grid.shape == (50 + 4 + 120, 124, 3)
  assert (grid[:50, :60] == 128).all() and (grid[:50, 60:64] == 255).all()
  assert (grid[54:, :60] == 0).all() and (grid[54:, 64:] == 255).all()
