"""Ways to compute the multi-spectral squeeze, and whole attention layers, in milliseconds.

    python -m benchmarks.cpu.attention

The squeeze alone, then with its gradient with respect to the input; the fastest of several
interleaved runs. 'average' is the squeeze of squeeze-and-excitation, the lower bound.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import common
from fcajax.layers.attention import ATTENTIONS, MultiSpectralAttention
from fcajax.ops.dct import multispectral_basis
from fcajax.ops.pooling import adaptive_average_pool
from fcajax.selection.frequencies import frequency_indices

# Feature maps (N, H, W, C) and DCT sizes of ResNet-50: all stages at 224, two at 800 x 1333.
SHAPES = (
    ((8, 56, 56, 256), 56), ((8, 28, 28, 512), 28), ((8, 14, 14, 1024), 14), ((8, 7, 7, 2048), 7),
    ((1, 200, 334, 256), 56), ((2, 25, 42, 2048), 7),
)


def squeezes(size, channels):
  """Returns name -> function of the features: the same sum, computed in different ways."""
  basis = multispectral_basis(size, size, frequency_indices('top16'), channels)
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


def milliseconds(functions, x, repeats):
  """Returns name -> fewest milliseconds of a compiled call."""
  compiled = {name: jax.jit(function) for name, function in functions.items()}
  times = common.interleaved(compiled, repeats, x)
  return {name: round(1e3 * float(values[:, 0].min()), 4) for name, values in times.items()}


def gradient(function):
  return jax.grad(lambda x: jnp.sum(function(x)**2))


def layers(x):
  """Returns name -> inference of each attention layer with fresh weights."""
  functions = {}
  for name, attention in ATTENTIONS.items():
    layer = attention()
    variables = layer.init(jax.random.key(0), x)
    functions[name] = lambda x, layer=layer, variables=variables: layer.apply(variables, x)
  return functions


def measure(args):
  results = {'squeeze': {}, 'squeeze and gradient': {}, 'layer, inference': {}}
  for shape, size in args.shapes:
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    functions = squeezes(size, shape[-1])
    label = ' x '.join(map(str, shape))
    to_size = f'{label} to {size}'
    results['squeeze'][to_size] = milliseconds(functions, x, args.repeats)
    results['squeeze and gradient'][to_size] = milliseconds(
        {name: gradient(function) for name, function in functions.items()}, x, args.repeats)
    if shape[1:3] == (size, size):
      results['layer, inference'][label] = milliseconds(layers(x), x, args.repeats)
  return results


def show(results):
  for title, rows in results.items():
    names = list(next(iter(rows.values())))
    print(f'\n{title}, ms\n')
    print(common.markdown(['features', *names], [
        [label, *(f'{values[name]:.2f}' for name in names)] for label, values in rows.items()]))


def main(argv=None):
  common.run('benchmarks.cpu.attention', __doc__, measure, show, argv=argv, options={
      '--repeats': {'type': int, 'default': 7},
      '--shapes': {'type': parse_shapes, 'default': SHAPES, 'metavar': 'N,H,W,C,SIZE[;...]'},
  }, small={'shapes': (((2, 7, 7, 32), 7),), 'repeats': 2})


def parse_shapes(text):
  """Parses 'N,H,W,C,SIZE;...' to ((N, H, W, C), SIZE) each."""
  numbers = [tuple(int(part) for part in item.split(',')) for item in text.split(';')]
  return tuple((item[:4], item[4]) for item in numbers)


if __name__ == '__main__':
  main()
