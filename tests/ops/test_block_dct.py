"""The block transform against scipy and libjpeg; augmentation on coefficients against pixels."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from fcajax.ops.block_dct import block_dct, block_idct, pad_to_blocks, zigzag_order


@pytest.fixture(scope='module')
def pixels():
  return np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype(np.float32)


def _by_scipy(x, block=8):
  n, height, width, channels = x.shape
  blocks = (x.astype(np.float64) - 128).reshape(
      n, height // block, block, width // block, block, channels)
  blocks = scipy.fft.dctn(blocks, axes=(2, 4), norm='ortho')
  return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, height // block, width // block, -1)


def test_equals_scipy(pixels):
  expected = _by_scipy(pixels)
  result = np.asarray(block_dct(pixels))
  assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


def test_selected_coefficients(pixels):
  indices = ([0, 9, 8, 63], [], [5])
  result = block_dct(pixels, indices=indices)
  expected = _by_scipy(pixels)[..., [0, 9, 8, 63, 128 + 5]]
  assert result.shape == (2, 4, 6, 5)
  np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_other_block_size(pixels):
  np.testing.assert_allclose(block_dct(pixels, block=4), _by_scipy(pixels, 4), atol=1e-2)


def test_inverse(pixels):
  np.testing.assert_allclose(block_idct(block_dct(pixels)), pixels, atol=1e-3)


def test_low_precision_input_is_transformed_in_float32(pixels):
  x = pixels.astype(np.uint8)
  for dtype in (jnp.uint8, jnp.bfloat16):
    converted = jnp.asarray(x).astype(dtype)
    result = block_dct(converted)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, block_dct(np.asarray(converted, np.float32)))


def test_every_product_asks_for_the_highest_precision(pixels):
  def there_and_back(x):
    return block_idct(block_dct(x))
  text = str(jax.make_jaxpr(there_and_back)(pixels))
  products = text.count('dot_general[') + text.count('conv_general_dilated[')
  assert products and text.count('HIGHEST') >= products


def test_equals_the_coefficients_inside_jpeg_files(shared_data):
  """Decoded pixels carry the decoder's rounding: 1 / sqrt(12) = 0.29 in the mean square."""
  jpeglib = pytest.importorskip('jpeglib', reason="libjpeg's own coefficients need jpeglib")
  compared = 0
  for path in sorted((shared_data / 'photos').glob('*'))[:12]:
    try:
      file = jpeglib.read_dct(str(path))
      if file.Cb is None:
        continue
      pixels = jpeglib.read_spatial(
          str(path), out_color_space=jpeglib.Colorspace.JCS_YCbCr).spatial
    except (OSError, RuntimeError):
      continue  # not every file there is a JPEG of three components
    rows, columns = (side // 8 for side in pixels.shape[:2])
    pixels = pixels[:8 * rows, :8 * columns]
    result = np.asarray(block_dct(pixels[None]))[0].reshape(rows, columns, 3, 8, 8)
    # A subsampled component is enlarged in the pixels, so only the others can be compared.
    full = [c for c in range(3) if tuple(file.samp_factor[c]) == tuple(file.samp_factor.max(0))]
    assert 0 in full
    for c in full:
      stored = (file.Y, file.Cb, file.Cr)[c][:rows, :columns].astype(np.float64)
      error = result[:, :, c] - stored * file.qt[file.quant_tbl_no[c]]
      blocks = pixels[..., c].reshape(rows, 8, columns, 8)
      clipped = ((blocks == 0) | (blocks == 255)).any((1, 3))  # the decoder lost something there
      assert np.sqrt((error[~clipped] ** 2).mean()) < 0.3
      # Half a level in each of 64 pixels moves a coefficient by at most sqrt(64) / 2.
      assert np.abs(error[~clipped]).max() < 4.01
      compared += 1
  assert compared >= 12


def test_zigzag():
  order = zigzag_order()
  assert order[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
  assert order[-3:].tolist() == [55, 62, 63]
  assert sorted(order.tolist()) == list(range(64))


def test_padding_repeats_the_border():
  x = np.arange(2 * 10 * 3 * 1, dtype=np.float32).reshape(2, 10, 3, 1)
  padded = pad_to_blocks(x)
  assert padded.shape == (2, 16, 8, 1)
  np.testing.assert_array_equal(padded[:, :10, :3], x)
  np.testing.assert_array_equal(padded[:, 10:, 3:], np.broadcast_to(x[:, -1:, -1:], (2, 6, 5, 1)))


def test_gradient_of_an_orthonormal_transform(pixels):
  x = pixels[:1, :8, :8]
  gradient = jax.grad(lambda x: 0.5 * (block_dct(x) ** 2).sum())(x)
  np.testing.assert_allclose(gradient, x - 128, atol=1e-2)


@pytest.mark.parametrize('call, message', [
    (lambda x: block_dct(x[:, :20]), r'20 x 48 does not split into 8 x 8 blocks.*pad_to_blocks'),
    (lambda x: block_dct(x[0]), r'needs \[N, H, W, C\]'),
    (lambda x: block_dct(x, indices=[[0]]), '1 lists of coefficients for 3 components'),
    (lambda x: block_dct(x, indices=[[0], [64], []]), r'within 0..63.*remove \[64\]'),
    (lambda x: block_dct(x, indices=[[0, 0], [], []]), 'must be distinct'),
    (lambda x: block_dct(x, indices=[[], [], []]), 'no coefficient is selected'),
    (lambda x: block_idct(x), '3 channels are not whole 8 x 8 blocks'),
])
def test_errors(pixels, call, message):
  with pytest.raises(ValueError, match=message):
    call(pixels)
