"""Where the energy of the feature maps lies in the DCT domain, by stage."""
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fcajax.analysis.pictures import save_figure
from fcajax.ops.dct import dct_basis
from fcajax.typing import Array, Float, PyTree, UInt8


def cosine_energy(features: Float[Array, 'n h w c']) -> Float[Array, 'h w']:
  """Computes the mean squared orthonormal DCT-II over images and channels.

      E[u, v] = mean over n, c of (sum over i, j of x[n, i, j, c] b_u[i] b_v[j])^2

  Its sum is the mean of the squared values times H W (Parseval).
  """
  height, width = features.shape[1:3]
  coefficients = jnp.einsum(
      'nijc,iu,jv->nuvc', features.astype(jnp.float32), dct_basis(height), dct_basis(width),
      precision=lax.Precision.HIGHEST)
  return jnp.mean(coefficients**2, axis=(0, 3))


def feature_spectra(
    model: Any, variables: PyTree, images: UInt8[np.ndarray, 'n h w 3'],
    transform: Callable[[Any], Array], batch_size: int = 16,
) -> dict[str, Float[np.ndarray, '_ _']]:
  """Computes `cosine_energy` of the input and of every stage, as shares of each total.

  Args:
    model: a network of `create_model`.
    variables: its variables.
    images: pixels.
    transform: from pixels to the input of the network, as `device_transform` returns it.
    batch_size: number of images at a time.

  Returns:
    Name of the feature map -> shares that sum to 1, in the order of the network.
  """
  @jax.jit
  def energies(variables, batch):
    x = transform(batch)
    _, features = model.apply(variables, x, train=False, capture_features=True)
    maps = {'input': x, **{name: value for name, value in features.items() if value.ndim == 4}}
    names.extend(name for name in maps if name not in names)
    return {name: cosine_energy(value) for name, value in maps.items()}

  names, totals = [], {}
  for start in range(0, len(images), batch_size):
    batch = jnp.asarray(images[start:start + batch_size])
    for name, energy in energies(variables, batch).items():
      totals[name] = totals.get(name, 0) + np.asarray(energy) * len(batch)
  # Compiled functions return dictionaries sorted by name; `names` holds the network's order.
  order = [name for name in ('input', 'stem', *names) if name in totals]
  return {name: totals[name] / totals[name].sum() for name in dict.fromkeys(order)}


def low_share(energy: Float[np.ndarray, 'h w'], part: int = 7) -> float:
  """Returns the share of the energy in the lowest 1 / `part` of u and of v, (0, 0) included."""
  height, width = energy.shape
  return float(energy[:-(-height // part), :-(-width // part)].sum())


def draw(spectra: Mapping[str, Float[np.ndarray, '_ _']], path: str | pathlib.Path,
         title: str) -> None:
  """Draws the shares on a logarithmic scale, one panel for each feature map.

  Args:
    spectra: of `feature_spectra`.
    path: of the picture.
    title: of the picture.
  """
  from matplotlib.colors import LogNorm
  from matplotlib.figure import Figure
  columns = min(3, len(spectra))
  lines = -(-len(spectra) // columns)
  figure = Figure(figsize=(3.3 * columns + 0.9, 3.4 * lines + 0.6), layout='constrained')
  axes = figure.subplots(lines, columns, squeeze=False)
  for axis in axes.flat[len(spectra):]:
    axis.set_axis_off()
  for axis, (name, energy) in zip(axes.flat, spectra.items()):
    height, width = energy.shape
    image = axis.imshow(np.maximum(energy, 1e-8), cmap='cividis', norm=LogNorm(1e-6, 1),
                        extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axis.set_title(f'{name}, {height} x {width}\n(0, 0) holds {energy[0, 0]:.0%}, the lowest '
                   f'seventh {low_share(energy):.0%}', fontsize=10)
    axis.set(xlabel='v', ylabel='u')
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=6)
  figure.colorbar(image, ax=axes, label='share of the energy', shrink=0.8, extend='min')
  figure.suptitle(f'DCT energy of the feature maps, {title}', fontsize=12)
  save_figure(figure, path)
