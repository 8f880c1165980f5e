"""The block transform against scipy and libjpeg; augmentation on coefficients against pixels."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from fcajax.ops import block_dct_augment as augment
from fcajax.ops.block_dct import (
    METHODS,
    block_dct,
    block_idct,
    from_zigzag,
    pad_to_blocks,
    to_zigzag,
    zigzag_order,
)


@pytest.fixture(scope='module')
def pixels():
  return np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype(np.float32)


def _by_scipy(x, block=8):
  n, height, width, channels = x.shape
  blocks = (x.astype(np.float64) - 128).reshape(
      n, height // block, block, width // block, block, channels)
  blocks = scipy.fft.dctn(blocks, axes=(2, 4), norm='ortho')
  return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, height // block, width // block, -1)


@pytest.mark.parametrize('method', METHODS)
def test_equals_scipy(pixels, method):
  expected = _by_scipy(pixels)
  result = np.asarray(block_dct(pixels, method=method))
  assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('method', METHODS)
def test_selected_coefficients(pixels, method):
  indices = ([0, 9, 8, 63], [], [5])
  result = block_dct(pixels, indices=indices, method=method)
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
  for method in METHODS:
    text = str(jax.make_jaxpr(
        lambda x, m=method: block_dct(x, indices=([0], [1], [2]), method=m))(pixels))
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


def test_zigzag(pixels):
  order = zigzag_order()
  assert order[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
  assert order[-3:].tolist() == [55, 62, 63]
  assert sorted(order.tolist()) == list(range(64))
  coefficients = np.asarray(block_dct(pixels))
  zigzag = to_zigzag(coefficients)
  np.testing.assert_array_equal(zigzag[..., 64 + 2], coefficients[..., 64 + 8])
  np.testing.assert_array_equal(from_zigzag(zigzag), coefficients)


def test_flips(pixels):
  coefficients = block_dct(pixels)
  np.testing.assert_allclose(augment.dct_flip_horizontal(coefficients),
                             block_dct(pixels[:, :, ::-1]), atol=1e-3)
  np.testing.assert_allclose(augment.dct_flip_vertical(coefficients),
                             block_dct(pixels[:, ::-1]), atol=1e-3)


@pytest.mark.parametrize('k', [-1, 0, 1, 2, 3, 5])
def test_rotation(pixels, k):
  expected = block_dct(np.rot90(pixels, k, axes=(1, 2)))
  np.testing.assert_allclose(augment.dct_rot90(block_dct(pixels), k), expected, atol=1e-3)


def test_crop(pixels):
  result = augment.dct_crop(block_dct(pixels), 8, 16, 24, 32)
  np.testing.assert_allclose(result, block_dct(pixels[:, 8:32, 16:48]), atol=1e-3)


def test_augmentation_of_a_subset(pixels):
  indices = ([0, 1, 8, 9], [0], [1, 8])
  channels = np.array([0, 1, 8, 9, 64, 129, 136])
  coefficients = block_dct(pixels, indices=indices)
  np.testing.assert_allclose(augment.dct_flip_horizontal(coefficients, channels),
                             block_dct(pixels[:, :, ::-1], indices=indices), atol=1e-3)
  np.testing.assert_allclose(augment.dct_rot90(coefficients, 1, channels),
                             block_dct(np.rot90(pixels, axes=(1, 2)), indices=indices), atol=1e-3)


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
    (lambda x: block_dct(x, method='fft'), "method='fft' is unknown"),
    (lambda x: block_dct(x, indices=[[0]]), '1 lists of coefficients for 3 components'),
    (lambda x: block_dct(x, indices=[[0], [64], []]), r'within 0..63.*remove \[64\]'),
    (lambda x: block_dct(x, indices=[[0, 0], [], []]), 'must be distinct'),
    (lambda x: block_dct(x, indices=[[], [], []]), 'no coefficient is selected'),
    (lambda x: block_idct(x), '3 channels are not whole 8 x 8 blocks'),
    (lambda x: to_zigzag(x), 'not whole blocks of 64'),
    (lambda x: augment.dct_flip_vertical(x), 'name them with channels='),
    (lambda x: augment.dct_flip_vertical(x, [0, 1]), '2 channel indices for 3 channels'),
    (lambda x: augment.dct_rot90(x, 1, [0, 1, 2]), r'component 0 has \(0, 1\) but not \(1, 0\)'),
    (lambda x: augment.dct_crop(x, 4, 0, 8, 8), 'top=4 is no multiple of the block size 8'),
    (lambda x: augment.dct_crop(x, 0, 0, 8 * 40, 8), 'leaves the image'),
])
def test_errors(pixels, call, message):
  with pytest.raises(ValueError, match=message):
    call(pixels)
