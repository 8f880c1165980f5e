"""Cosine bases, filters of multi-spectral attention, and adaptive pooling."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax.ops.dct import (
  dct_basis,
  drawn_basis,
  multispectral_basis,
  multispectral_factors,
  scale_frequency,
)
from fcajax.ops.pooling import adaptive_average_pool, adaptive_pooling_matrix
from fcajax.selection.frequencies import frequency_indices


def cosine(length, frequency, position):
  scale = np.sqrt((1 if frequency == 0 else 2) / length)
  return scale * np.cos(np.pi * frequency * (position + 0.5) / length)


@pytest.mark.parametrize('length', [1, 2, 7, 8, 56])
def test_dct_basis_is_the_orthonormal_dct(length):
  basis = dct_basis(length, dtype=np.float64)
  expected = [[cosine(length, k, i) for k in range(length)] for i in range(length)]
  np.testing.assert_allclose(basis, expected, atol=1e-14)
  np.testing.assert_allclose(basis.T @ basis, np.eye(length), atol=1e-12)


def test_dct_basis_takes_some_frequencies():
  np.testing.assert_array_equal(dct_basis(8, (5, 0)), dct_basis(8)[:, [5, 0]])
  assert dct_basis(8).dtype == np.float32
  with pytest.raises(ValueError, match=r'frequency 8 does not exist for 8 samples; use 0\.\.7'):
    dct_basis(8, (0, 8))
  with pytest.raises(ValueError, match='frequency -1'):
    dct_basis(8, (-1,))


def test_grid_indices_keep_the_frequency_per_pixel():
  for multiple in (1, 2, 4, 8, 25):
    assert [scale_frequency(u, 7 * multiple) for u in range(7)] == [
        u * multiple for u in range(7)]
  for size in range(7, 400):
    scaled = [scale_frequency(u, size) for u in range(7)]
    assert len(set(scaled)) == 7 and max(scaled) < size
    assert np.abs(np.array(scaled) - np.arange(7) * size / 7).max() <= 0.5
  assert [scale_frequency(u, 8) for u in range(7)] == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize('height, width, names', [
    (14, 14, 'top16'), (8, 13, 'low8'), (25, 42, 'bot4'), (16, 7, [(1, 2)])])
def test_multispectral_basis_is_its_definition(height, width, names):
  pairs = frequency_indices(names)
  basis = multispectral_basis(height, width, pairs, 2 * len(pairs))
  assert basis.shape == (height, width, 2 * len(pairs)) and basis.dtype == np.float32
  i, j = np.mgrid[:height, :width]
  for g, (u, v) in enumerate(pairs):
    u, v = round(u * height / 7), round(v * width / 7)
    expected = cosine(height, u, i) * cosine(width, v, j)
    for c in (2 * g, 2 * g + 1):
      np.testing.assert_allclose(basis[:, :, c], expected, atol=1e-7)
  np.testing.assert_allclose((basis**2).sum((0, 1)), 1, rtol=1e-5)


@pytest.mark.parametrize('name, frequencies', [
    ('top16_c64_14', 'top16'), ('low8_c32_7', 'low8'), ('bot4_c32_28', 'bot4'),
    ('top2_c16_56', 'top2')])
def test_basis_equals_the_published_buffer(data_dir, name, frequencies):
  published = np.load(data_dir / 'fca.npz')[f'{name}/weights/dct_layer.weight']
  channels, height, width = published.shape
  basis = multispectral_basis(height, width, frequency_indices(frequencies), channels)
  np.testing.assert_allclose(basis, published.transpose(1, 2, 0), atol=1e-7)


def test_bases_are_shared_and_read_only():
  pairs = frequency_indices('top4')
  basis = multispectral_basis(14, 14, pairs, 8)
  assert multispectral_basis(14, 14, [list(pair) for pair in pairs], 8) is basis
  for array in (basis, dct_basis(8), *multispectral_factors(9, 9, pairs),
                adaptive_pooling_matrix(9, 7), drawn_basis(7, 7, 4, 'random', 0)):
    with pytest.raises(ValueError, match='read-only'):
      array[...] = 0


@pytest.mark.parametrize('size, frequencies, message', [
    ((4, 4), 'top16', r'frequencies \(0, 1\) and \(0, 2\) of the 7 x 7 grid are both \(0, 1\) at '
     r'4 x 4; use a size of at least 7 x 7, or only the first 4 of these 16'),
    ((3, 3), [(6, 0)], r'frequency \(6, 0\) of the 7 x 7 grid becomes \(3, 0\), but 3 x 3 holds '
     r'only 0..2 x 0..2; use a size of at least 7 x 7, or lower frequencies'),
    ((7, 7), [(0, 1), (1, 0), (0, 1)], r'\(0, 1\) is listed twice'),
    ((0, 7), 'top1', '0 x 7 is empty'),
])
def test_filters_that_collapse(size, frequencies, message):
  with pytest.raises(ValueError, match=message):
    multispectral_basis(*size, frequency_indices(frequencies), 48)


def test_the_named_way_out_of_a_collapse_works():
  assert multispectral_basis(4, 4, frequency_indices('top4'), 8).shape == (4, 4, 8)


def test_channels_that_do_not_split():
  with pytest.raises(ValueError, match=r"channels=100 does not split into 16 .*'top10'"):
    multispectral_basis(7, 7, frequency_indices('top16'), 100)
  with pytest.raises(ValueError, match='channels=64 does not split into 49 frequencies'):
    multispectral_basis(7, 7, frequency_indices('all'), 64)
  assert multispectral_basis(7, 7, frequency_indices('all'), 98).shape == (7, 7, 98)


@pytest.mark.parametrize('input_size, output_size', [
    (14, 7), (20, 14), (17, 14), (7, 7), (200, 56), (334, 56), (5, 7), (2, 7), (1, 3), (9, 1)])
def test_pooling_matrix_holds_pytorch_bins(input_size, output_size):
  x = np.random.default_rng(0).standard_normal(input_size)
  expected = [x[i * input_size // output_size:-(-(i + 1) * input_size // output_size)].mean()
              for i in range(output_size)]
  np.testing.assert_allclose(adaptive_pooling_matrix(input_size, output_size) @ x, expected,
                             rtol=1e-12)


def test_adaptive_average_pool(key):
  x = jax.random.normal(key, (2, 20, 17, 3))
  pool = jax.jit(lambda x: adaptive_average_pool(x, (14, 6)))
  rows, columns = adaptive_pooling_matrix(20, 14), adaptive_pooling_matrix(17, 6)
  np.testing.assert_allclose(
      pool(x), np.einsum('nhwc,oh,pw->nopc', x, rows, columns), atol=1e-6)
  gradient = jax.grad(lambda x: pool(x).sum())(x)
  expected = np.broadcast_to((rows.sum(0)[:, None] * columns.sum(0))[..., None], x.shape)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)
  assert 'scatter' not in str(jax.make_jaxpr(jax.grad(lambda x: pool(x).sum()))(x))
  half = pool(x.astype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(adaptive_average_pool(x, (20, 17)), x)
  with pytest.raises(ValueError, match='cannot pool 20 positions to 0'):
    adaptive_average_pool(x, (0, 7))


def test_adaptive_average_pool_equals_pytorch(key):
  torch = pytest.importorskip('torch', reason='compares with PyTorch')
  x = np.array(jax.random.normal(key, (1, 25, 42, 2)))
  expected = torch.nn.functional.adaptive_avg_pool2d(
      torch.from_numpy(x.transpose(0, 3, 1, 2)), (7, 9)).numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(adaptive_average_pool(x, (7, 9)), expected, atol=1e-6)


@pytest.mark.parametrize('channels', [5, 9, 24])
def test_drawn_bases(channels):
  random = drawn_basis(3, 3, channels, 'random', 0)
  assert random.shape == (3, 3, channels) and random.min() >= 0
  np.testing.assert_allclose((random**2).sum((0, 1)), 1, rtol=1e-5)
  assert np.abs(random - drawn_basis(3, 3, channels, 'random', 1)).max() > 0.1
  filters = drawn_basis(3, 3, channels, 'orthogonal', 0).reshape(9, channels)
  for start in range(0, channels, 9):
    block = filters[:, start:start + 9]
    np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-6)
  # Gram-Schmidt keeps the direction of the first draw.
  np.testing.assert_allclose(filters[:, 0], random.reshape(9, channels)[:, 0], atol=1e-6)
