"""Measures at which sizes the Fourier transform is faster as an FFT or as matrix products.

    python -m benchmarks.accelerator.fourier_table            # prints
    python -m benchmarks.accelerator.fourier_table --update   # replaces this backend's entry of
                                                              # the table that 'auto' goes by

Forward and backward of `rfft2` and `irfft2` with a ReLU between them, medians of interleaved runs,
in milliseconds, on the default device.
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from fcajax.ops import fourier, fourier_table

IMPLEMENTATIONS = ('fft', 'dft')
SIZES = (2, 4, 7, 8, 11, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112, 128, 160, 224)
# Every size is measured on about as many values.
VALUES = 400_000


def measure_size(size, dtype, repeats):
  """Measures both implementations on maps of `size` x `size` x 32."""
  batch = max(1, VALUES // (32 * size * size))
  x = jnp.asarray(np.random.default_rng(0).standard_normal((batch, size, size, 32)), dtype)

  def step(implementation):
    def loss(x):
      spectrum = fourier.rfft2(x, implementation=implementation)
      spectrum = [jax.nn.relu(half).astype(x.dtype) for half in spectrum]
      y = fourier.irfft2(spectrum, (size, size), implementation=implementation)
      return (y ** 2).sum()
    return jax.jit(jax.grad(loss))

  times = common.interleaved({name: step(name) for name in IMPLEMENTATIONS}, repeats, x)
  return size, *(round(1e3 * float(np.median(times[name][:, 0])), 3) for name in IMPLEMENTATIONS)


def update(entry):
  """Replaces the entry of this backend in the table that 'auto' goes by."""
  path = pathlib.Path(fourier_table.__file__)
  head, _, _ = path.read_text().partition('TABLE = {')
  table = {**fourier_table.TABLE, jax.default_backend(): entry}
  path.write_text(f'{head}TABLE = {as_python(table)}\n')
  print(f'wrote {path}')


def as_python(table):
  """Formats the table as Python source, one measured size a line."""
  lines = ['{']
  for platform, entry in table.items():
    if 'dft_up_to' in entry:
      lines.append(f'    {platform!r}: {entry!r},')
      continue
    lines.append(f'    {platform!r}: {{')
    for key, value in entry.items():
      if isinstance(value, str):
        lines.append(f'        {key!r}: {value!r},')
      else:
        lines += [f'        {key!r}: (', *(f'            {row!r},' for row in value), '        ),']
    lines.append('    },')
  return '\n'.join([*lines, '}'])


def measure(args):
  entry = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
  for dtype in ('float32', 'bfloat16'):
    entry[dtype] = [measure_size(size, jnp.dtype(dtype), args.repeats) for size in args.sizes]
  if args.update and not args.small:
    update(entry)
  return {'backend': jax.default_backend(), **entry}


def show(results):
  for dtype in ('float32', 'bfloat16'):
    print(f'\nrfft2 and irfft2, forward and backward, {dtype}, on {results["device"]}\n')
    print(common.markdown(['size', *(f'{name}, ms' for name in IMPLEMENTATIONS), 'ratio'], [
        [str(size), f'{fft:.3f}', f'{dft:.3f}', f'{fft / dft:.2f}']
        for size, fft, dft in results[dtype]]))


def main(argv=None):
  common.run('benchmarks.accelerator.fourier_table', __doc__, measure, show, argv=argv, options={
      '--repeats': {'type': int, 'default': 31},
      '--sizes': {'type': int, 'nargs': '+', 'default': SIZES},
      '--update': {'action': 'store_true', 'help': "replace this backend's entry"},
  }, small={'sizes': (4,), 'repeats': 1})


if __name__ == '__main__':
  main()
