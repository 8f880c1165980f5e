"""The switch for the platform that programs are traced for."""
import jax
import jax.numpy as jnp
import pytest
from jax import export

import fcajax
from fcajax.layers.fourier import FFCNormAct
from fcajax.ops.pooling import max_pool
from fcajax.ops.target import is_cpu_only, target, targets


def test_the_default_is_the_backend(monkeypatch):
  assert targets() == (jax.default_backend(),)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'somewhere else')
  assert targets() == ('somewhere else',) and not is_cpu_only()


def test_contexts_nest_and_end():
  before = targets()
  with target('tpu'):
    with fcajax.target('cuda', 'cpu', 'rocm'):
      assert targets() == ('cpu', 'gpu') and not is_cpu_only()
    with target('cpu'):
      assert is_cpu_only()
    assert targets() == ('tpu',)
  assert targets() == before


def test_jit_traces_again_under_another_target():
  pool = jax.jit(max_pool)
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)

  def text():
    return pool.lower(x).as_text()
  with target('cpu'):
    assert 'reduce_window' not in text()
  with target('tpu'):
    assert 'reduce_window' in text()
  with target('cpu'):
    assert 'reduce_window' not in text()


def test_an_export_for_another_platform_holds_that_platforms_program():
  pair = (jax.ShapeDtypeStruct((1, 64, 64, 4), 'float32'),) * 2
  layer = FFCNormAct(8, 3, lfu=False)
  variables = jax.eval_shape(lambda: layer.init(
      jax.random.key(0), tuple(jnp.zeros(half.shape) for half in pair)))

  def convolutions_and_transforms(*platforms):
    with target(*platforms):
      text = export.export(jax.jit(layer.apply), platforms=platforms)(
          variables, pair).mlir_module()
    return text.count('stablehlo.convolution'), 'stablehlo.fft' in text
  # On a CPU 1x1 convolutions are products, and 64 x 64 is beyond where 'dft' is faster.
  on_cpu, fft_on_cpu = convolutions_and_transforms('cpu')
  on_tpu, fft_on_tpu = convolutions_and_transforms('tpu')
  assert (on_cpu, fft_on_cpu) == (3, True)
  assert (on_tpu, fft_on_tpu) == (5, False)
  on_both, fft_on_both = convolutions_and_transforms('cpu', 'tpu')
  assert (on_both % on_tpu, fft_on_both) == (0, False)  # JAX may repeat them for each platform


@pytest.mark.parametrize('platforms, message', [
    (('tpuu',), "unknown platform 'tpuu': did you mean 'tpu'"), ((), 'needs a platform')])
def test_unknown_platforms(platforms, message):
  with pytest.raises(ValueError, match=message), target(*platforms):
    pass
