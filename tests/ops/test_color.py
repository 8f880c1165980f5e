"""Full-range YCbCr and enlarged planes against JPEG's definition."""
import numpy as np
import pytest

from fcajax.ops import color


def _planes(shape, seed=0):
  return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def test_primaries_and_grey():
  rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [7, 7, 7]], np.uint8)
  # JFIF 1.02, section 7, written out.
  red, green, blue = rgb.astype(float).T
  luma = 0.299 * red + 0.587 * green + 0.114 * blue
  expected = np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], -1)
  np.testing.assert_allclose(color.rgb_to_ycbcr(rgb), expected, atol=1e-4)
  np.testing.assert_allclose(color.rgb_to_ycbcr(rgb)[3:, 1:], 128, atol=1e-4)


def test_agrees_with_pillow_within_rounding():
  from PIL import Image
  rgb = _planes((32, 48, 3)).astype(np.uint8)
  pillow = np.asarray(Image.fromarray(rgb).convert('YCbCr'), np.float32)
  assert np.abs(np.asarray(color.rgb_to_ycbcr(rgb)) - pillow).max() <= 1.01


def test_inverse():
  x = _planes((2, 5, 7, 3))
  np.testing.assert_allclose(color.ycbcr_to_rgb(color.rgb_to_ycbcr(x)), x, atol=1e-3)


def test_double_is_bilinear_with_half_pixel_centres():
  import cv2
  x = _planes((1, 6, 9, 2))
  expected = cv2.resize(x[0], (18, 12), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(color.double(x)[0], expected, atol=1e-3)


def test_a_constant_plane_stays():
  x = np.full((1, 4, 4, 2), 77, np.uint8)
  np.testing.assert_allclose(color.double(x), 77, rtol=1e-6)


def test_errors():
  with pytest.raises(ValueError, match=r'three channels.*\(2, 2, 1\)'):
    color.rgb_to_ycbcr(np.zeros((2, 2, 1)))
