"""Ways to compute the multi-spectral squeeze, side by side, and whole attention layers.

    python benchmarks/attention.py

Prints milliseconds (the least of several interleaved runs) of the squeeze alone and of its
gradient with respect to the input. 'average' is the squeeze of squeeze-and-excitation, the floor.
"""
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fcajax.layers.attention import ATTENTIONS, MultiSpectralAttention
from fcajax.ops.dct import multispectral_basis
from fcajax.ops.pooling import adaptive_average_pool

# Feature maps (N, H, W, C) and DCT sizes of ResNet-50: all stages at 224, two at 800 x 1333.
SHAPES = (
    ((8, 56, 56, 256), 56), ((8, 28, 28, 512), 28), ((8, 14, 14, 1024), 14), ((8, 7, 7, 2048), 7),
    ((1, 200, 334, 256), 56), ((2, 25, 42, 2048), 7),
)
REPEATS = 7


def squeezes(size, channels):
  """Name -> function of the features: the same sum, computed in different ways."""
  basis = multispectral_basis(size, size, 'top16', channels)
  groups = basis.reshape(size, size, 16, channels // 16)[..., 0]
  layer = MultiSpectralAttention(dct_size=size)

  def pooled(x):
    return x if x.shape[1:3] == (size, size) else adaptive_average_pool(x, (size, size))

  def product(x):
    x = pooled(x)
    x = x.reshape(*x.shape[:3], 16, -1)
    return jnp.einsum('nhwkc,hwk->nkc', x, groups, precision=lax.Precision.HIGHEST)
  return {
      'average': lambda x: jnp.mean(x, axis=(1, 2)),
      'fcajax': lambda x: layer.apply({}, x, method='squeeze'),
      'pool, full basis': lambda x: jnp.sum(pooled(x) * basis, axis=(1, 2)),
      'pool, einsum': product,
  }


def milliseconds(functions, x):
  """Name -> least milliseconds of compiled calls, the functions taking turns."""
  compiled = {name: jax.jit(function) for name, function in functions.items()}
  for function in compiled.values():
    jax.block_until_ready(function(x))
  best = dict.fromkeys(compiled, float('inf'))
  for _ in range(REPEATS):
    for name, function in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(function(x))
      best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
  return best


def gradient(function):
  return jax.grad(lambda x: jnp.sum(function(x)**2))


def table(title, rows):
  names = list(next(iter(rows.values())))
  print(f'\n{title}\n| features | ' + ' | '.join(names) + ' |\n|' + '---|' * (len(names) + 1))
  for label, values in rows.items():
    print(f'| {label} | ' + ' | '.join(f'{values[name]:.2f}' for name in names) + ' |', flush=True)


def main():
  print(f'jax {jax.__version__} on {jax.devices()[0].device_kind}')
  forward, backward = {}, {}
  for shape, size in SHAPES:
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    functions = squeezes(size, shape[-1])
    label = ' x '.join(map(str, shape)) + f' to {size}'
    forward[label] = milliseconds(functions, x)
    backward[label] = milliseconds({k: gradient(f) for k, f in functions.items()}, x)
  table('Squeeze, ms', forward)
  table('Squeeze and its gradient, ms', backward)

  layers = {}
  for shape, _ in SHAPES[:4]:
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    functions = {}
    for name, attention in ATTENTIONS.items():
      layer = attention()
      variables = layer.init(jax.random.key(0), x)
      functions[name] = lambda x, layer=layer, variables=variables: layer.apply(variables, x)
    layers[' x '.join(map(str, shape))] = milliseconds(functions, x)
  table('Whole layer, inference, ms', layers)


if __name__ == '__main__':
  main()
