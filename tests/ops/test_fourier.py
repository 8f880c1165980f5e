"""The two-dimensional real Fourier transform, against NumPy's."""
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fcajax.ops import fourier
from fcajax.ops.target import target
from tests.helpers.unchecked import unchecked

SIZES = [(1, 1), (1, 4), (4, 1), (1, 5), (2, 2), (3, 2), (4, 4), (5, 5), (7, 7), (6, 9), (9, 6),
         (13, 8), (8, 13), (28, 14)]
IMPLEMENTATIONS = ('fft', 'dft')


def random(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_spectrum(size, seed=0):
  """Not Hermitian in any column, as after a ReLU."""
  shape = (2, size[0], size[1] // 2 + 1, 3)
  return random(shape, seed), random(shape, seed + 1)


def relative_error(actual, expected):
  return np.abs(np.asarray(actual) - np.asarray(expected)).max() / np.abs(expected).max()


@functools.partial(jax.jit, static_argnames=('norm', 'implementation'))
def both_ways(x, spectrum, norm, implementation):
  """rfft2 of `x` as one complex array, and irfft2 of `spectrum` to the size of `x`."""
  real, imaginary = fourier.rfft2(x, norm, implementation)
  return jax.lax.complex(real, imaginary), fourier.irfft2(
      spectrum, x.shape[1:3], norm, implementation)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('norm, sizes', [
    ('ortho', SIZES), ('backward', SIZES[8:10]), ('forward', SIZES[8:10])])
def test_both_directions_are_numpys_at_every_size(implementation, norm, sizes):
  for size in sizes:
    x, (real, imaginary) = random((2, *size, 3)), random_spectrum(size)
    spectrum, back = both_ways(x, (real, imaginary), norm, implementation)
    expected = np.fft.rfft2(x.astype(np.float64), axes=(1, 2), norm=norm)
    assert relative_error(spectrum, expected) < 2e-6, size
    expected = np.fft.irfft2(real + 1j * imaginary.astype(np.float64), s=size, axes=(1, 2),
                             norm=norm)
    assert relative_error(back, expected) < 2e-6, size


def test_the_hermitian_part_of_the_edge_columns_is_all_that_counts():
  for size in ((1, 4), (5, 5), (6, 9)):
    real, imaginary = random_spectrum(size)
    kept = fourier._hermitian_edges(real, imaginary, size[1])
    expected = np.fft.irfft2(real + 1j * imaginary, s=size, axes=(1, 2))
    actual = np.fft.irfft2(kept[0] + 1j * np.asarray(kept[1]), s=size, axes=(1, 2))
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    column = np.asarray(kept[0])[:, :, 0] + 1j * np.asarray(kept[1])[:, :, 0]
    flipped = np.roll(column[:, ::-1], 1, axis=1)
    np.testing.assert_allclose(column, flipped.conj(), atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != 'gpu', reason='needs a GPU')
def test_a_gpu_inverts_spectra_that_are_not_hermitian_as_numpy_does():
  for size in [(7, 7), (14, 14), (28, 28), (56, 56), (13, 8), (8, 13)]:
    real, imaginary = random_spectrum(size)
    expected = np.fft.irfft2(real + 1j * imaginary.astype(np.float64), s=size, axes=(1, 2),
                             norm='ortho')
    for implementation in IMPLEMENTATIONS:
      actual = fourier.irfft2((real, imaginary), size, implementation=implementation)
      assert relative_error(actual, expected) < 1e-5, (size, implementation)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_the_round_trip_returns_the_map(implementation):
  @jax.jit
  def round_trip(x):
    spectrum = fourier.rfft2(x, implementation=implementation)
    return fourier.irfft2(spectrum, x.shape[-3:-1], implementation=implementation)

  for shape in ((225, 230, 1), (3, 2, 4, 6, 5)):  # any number of axes may lead
    x = random(shape)
    np.testing.assert_allclose(round_trip(x), x, atol=2e-5)


def test_gradients_agree_between_implementations():
  x, weights = random((1, 5, 6, 2)), random((1, 5, 6, 2), seed=5)

  @functools.partial(jax.jit, static_argnums=1)
  def loss(x, implementation):
    real, imaginary = fourier.rfft2(x, implementation=implementation)
    spectrum = jax.nn.relu(real), jax.nn.relu(imaginary)
    return (weights * fourier.irfft2(spectrum, (5, 6), implementation=implementation)).sum()

  gradient = jax.jit(jax.grad(loss), static_argnums=1)
  gradients = [gradient(x, implementation) for implementation in IMPLEMENTATIONS]
  np.testing.assert_allclose(*gradients, atol=1e-5)
  direction, step = random(x.shape, seed=7), 1e-3
  slope = (loss(x + step * direction, 'dft') - loss(x - step * direction, 'dft')) / (2 * step)
  np.testing.assert_allclose(slope, (gradients[0] * direction).sum(), rtol=2e-2)


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
@pytest.mark.parametrize('dtype, tolerance', [(jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
def test_narrow_floats_come_back_as_float32(implementation, dtype, tolerance):
  x = random((2, 14, 14, 8))
  expected = np.fft.rfft2(x, axes=(1, 2), norm='ortho')
  halves = jnp.asarray(expected.real, dtype), jnp.asarray(expected.imag, dtype)
  spectrum, back = both_ways(jnp.asarray(x, dtype), halves, 'ortho', implementation)
  assert (spectrum.dtype, back.dtype) == (jnp.complex64, jnp.float32)
  assert relative_error(spectrum, expected) < tolerance
  assert relative_error(back, x) < tolerance


def equations(jaxpr, outer=''):
  """Every (scope, equation), inner calls included."""
  for equation in jaxpr.eqns:
    scope = f'{outer}/{equation.source_info.name_stack}'
    yield scope, equation
    for value in equation.params.values():
      if hasattr(value, 'jaxpr'):
        yield from equations(value.jaxpr, scope)


def transform(x, implementation, **options):
  spectrum = fourier.rfft2(x, implementation=implementation, **options)
  return fourier.irfft2(spectrum, x.shape[1:3], implementation=implementation, **options)


def test_products_are_in_the_dtype_asked_for():
  def products(dtype, **options):
    x = jnp.ones((1, 6, 6, 2), dtype)
    jaxpr = jax.make_jaxpr(lambda x: transform(x, 'dft', **options))(x)
    return [e for _, e in equations(jaxpr.jaxpr) if e.primitive.name == 'dot_general']

  wide, narrow = products(jnp.float32), products(jnp.bfloat16)
  assert len(wide) == len(narrow) == 4
  assert all(e.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2 for e in wide)
  assert {v.aval.dtype.name for e in narrow[:2] for v in e.invars} == {'bfloat16'}
  assert all(e.params['preferred_element_type'] == jnp.float32 for e in narrow)
  assert all(e.params['precision'] is None for e in products(jnp.float32, precision=None))


@pytest.mark.parametrize('implementation', IMPLEMENTATIONS)
def test_the_transform_can_be_told_apart_in_a_trace(implementation):
  jaxpr = jax.make_jaxpr(lambda x: transform(x, implementation))(jnp.ones((1, 4, 4, 1)))
  scopes = [scope for scope, e in equations(jaxpr.jaxpr)
            if e.primitive.name in ('dot_general', 'fft')]
  assert scopes and all('fourier_transform' in scope.split('/') for scope in scopes)


def test_auto_follows_the_table(monkeypatch):
  table = {
      'cpu': {'float32': ((8, 2, 1), (64, 1, 2)), 'bfloat16': ((8, 1, 2),)},
      'gpu': {'dft_up_to': 64}}
  monkeypatch.setattr(fourier, 'TABLE', table)
  assert fourier.choose('auto', 8, 8) == 'dft'
  assert fourier.choose('auto', 22, 22) == 'dft'  # 22.6 is halfway between 8 and 64
  assert fourier.choose('auto', 23, 23) == 'fft'
  assert fourier.choose('auto', 4, 1000) == 'fft'
  assert fourier.choose('auto', 8, 8, jnp.bfloat16) == 'fft'
  assert fourier.choose('fft', 8, 8) == 'fft'
  with target('gpu'):
    assert [fourier.choose('auto', size, size) for size in (64, 65)] == ['dft', 'fft']
  with target('tpu'):  # not in this table
    assert fourier.choose('auto', 1000, 1000) == 'dft'
  with target('cpu', 'gpu'):
    assert [fourier.choose('auto', size, size) for size in (64, 65)] == ['dft', 'fft']
  with target('cpu', 'tpu'):
    assert fourier.choose('auto', 1000, 1000) == 'dft'


def test_the_table_is_complete():
  assert {'cpu', 'gpu', 'tpu'} <= set(fourier.TABLE)
  for dtype in ('float32', 'bfloat16'):
    sizes = [size for size, _, _ in fourier.TABLE['cpu'][dtype]]
    assert sizes == sorted(sizes) and {7, 14, 28, 56} <= set(sizes)


def test_jit_parallelism_takes_products(monkeypatch):
  monkeypatch.setattr(jax, '__version_info__', (0, 11, 1))
  with pytest.warns(UserWarning, match="parallelism='jit'.*using 'dft'"):
    assert fourier.implementation_for('jit', 'fft') == 'dft'
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert fourier.implementation_for('jit', 'auto') == 'dft'
    for parallelism in ('shard_map', 'pmap'):
      for implementation in fourier.IMPLEMENTATIONS:
        assert fourier.implementation_for(parallelism, implementation) == implementation
    monkeypatch.setattr(jax, '__version_info__', (0, 12, 0))
    assert fourier.implementation_for('jit', 'fft') == 'fft'
  with unchecked(), pytest.raises(ValueError, match="fourier_implementation='fast'"):
    fourier.implementation_for('jit', 'fast')


def test_under_jit_products_leave_the_batch_where_it_is():
  mesh = jax.make_mesh((8,), ('batch',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec('batch'))
  x = jax.ShapeDtypeStruct((8, 4, 4, 2), jnp.float32, sharding=sharding)

  def compiled(implementation):
    function = jax.jit(lambda x: fourier.rfft2(x, implementation=implementation))
    return function.lower(x).compile().as_text()

  assert 'all-gather' not in compiled('dft')
  if jax.__version_info__ < (0, 12):
    assert 'all-gather' in compiled('fft')


@pytest.mark.parametrize('dtype', [np.complex64, np.int32])
def test_complex_and_integer_input_is_refused(dtype):
  x = np.ones((1, 4, 4, 1), dtype)
  with unchecked(), pytest.raises(TypeError, match=f'{x.dtype} values; cast'):
    fourier.rfft2(x)
  with unchecked(), pytest.raises(TypeError, match=f'{x.dtype} values; cast'):
    fourier.irfft2((x, x), (4, 6))


def test_bad_requests_name_what_is_allowed():
  x = random((1, 4, 4, 1))
  with unchecked(), pytest.raises(ValueError, match="implementation='fftw' is not one of"):
    fourier.rfft2(x, implementation='fftw')
  with unchecked(), pytest.raises(ValueError, match="norm='unitary' is not one of"):
    fourier.rfft2(x, norm='unitary')
  with pytest.raises(ValueError, match=r'\(1, 0, 4, 1\) is not \[..., H, W, C\]'):
    fourier.rfft2(x[:, :0])
  with pytest.raises(ValueError, match=r'4 x 9; both halves must be \[..., 4, 5, C\]'):
    fourier.irfft2((x, x), (4, 9))
