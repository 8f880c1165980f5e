"""The padding of images that keep their aspect ratio."""
import jax.numpy as jnp
import numpy as np

from fcajax.preprocessing.padding import clear_padding


def test_padding_is_cleared_image_by_image():
  x = jnp.ones((2, 4, 6, 3), jnp.bfloat16)
  cleared = clear_padding(x, jnp.array([[4, 5], [2, 6]]))
  assert cleared.dtype == jnp.bfloat16
  np.testing.assert_array_equal(cleared.sum((1, 2, 3)), [60, 36])
  assert not cleared[0, :, 5].any() and not cleared[1, 2:].any()
  # Of blocks of 8 pixels of an image of twice the size, one that is partly inside stays.
  blocks = clear_padding(x, jnp.array([[16, 17], [8, 24]]), 2 / 8)
  np.testing.assert_array_equal(blocks[..., 0].any(1).sum(1), [5, 6])
  np.testing.assert_array_equal(blocks[..., 0].any(2).sum(1), [4, 2])
