"""Effective receptive fields: what part of the image one position of a feature map depends on."""
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.analysis.pictures import save_figure
from fcajax.errors import UserError
from fcajax.typing import Array, Float, PyTree, UInt8

NOISE_IMAGES = 8
# Lines that differ without colour too.
_STYLES = ('-', '--', '-.', ':')


class Field(NamedTuple):
  """An effective receptive field.

  Attributes:
    shares: `[H, W]`, the share of the gradient at each input position; they sum to 1.
    centre: (row, column) of the input that lies under the centre of the feature map.
  """
  shares: Float[np.ndarray, 'h w']
  centre: tuple[int, int]


def noise(shape: tuple[int, int], seed: int = 0) -> UInt8[np.ndarray, 'n h w 3']:
  """Draws 8 images of independent uniform pixels."""
  size = (NOISE_IMAGES, *shape, 3)
  return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def effective_receptive_field(
    model: Any, variables: PyTree, images: UInt8[np.ndarray, 'n h w 3'],
    transform: Callable[[Any], Array], feature: str | None = None, batch_size: int = 4,
) -> Field:
  """Measures how much each input position moves the centre of a feature map.

      R[h, w] = mean over images of sum over input channels of
                |d (sum over channels of F[h0, w0]) / d x[h, w]|,   (h0, w0) the centre of F

  in evaluation mode, as shares that sum to 1. Source: Luo et al., "Understanding the Effective
  Receptive Field", 2016.

  Args:
    model: a network of `create_model`.
    variables: its variables.
    images: pixels.
    transform: from pixels to the input of the network, as `device_transform` returns it.
    feature: name of the feature map; None for the last.
    batch_size: number of images at a time.

  Returns:
    `Field` over the network's input. Its centre is h0 and w0 times the map's stride, as it is for
    odd kernels with symmetric padding.

  Raises:
    UserError: the network has no such feature map.
  """
  def maps(variables, x):
    _, features = model.apply(variables, x, train=False, capture_features=True)
    return {name: value for name, value in features.items() if value.ndim == 4}

  @jax.jit
  def gradient(variables, batch):
    def centre(x):
      value = maps(variables, x)[feature]
      return value[:, value.shape[1] // 2, value.shape[2] // 2].astype(jnp.float32).sum()
    return jnp.abs(jax.grad(centre)(transform(batch))).sum(3)

  # Filled while tracing: dictionaries that leave a transformed function are sorted by name.
  shapes = {}
  jax.eval_shape(
      lambda v, b: shapes.update({k: m.shape for k, m in maps(v, transform(b)).items()}),
      variables, images[:1])
  if feature is None:
    feature = list(shapes)[-1]
  if feature not in shapes:
    raise UserError(f"the network has no feature map '{feature}'; it has {', '.join(shapes)}")
  total = 0
  for start in range(0, len(images), batch_size):
    batch = images[start:start + batch_size]
    # One size of batch, so that one compiled program serves all.
    padded = np.concatenate([batch, images[:1].repeat(batch_size - len(batch), axis=0)])
    gradients = np.asarray(gradient(variables, padded), np.float64)
    total += gradients[:len(batch)].sum(0)
  return Field(total / total.sum(), tuple(
      size // 2 * 2**math.ceil(math.log2(side / size))
      for side, size in zip(total.shape, shapes[feature][1:3])))


def share_within(field: Field) -> Float[np.ndarray, ' sides']:
  """Returns the share of the gradient in the square of side 1, 3, 5, ... around the centre."""
  rows, columns = (abs(np.arange(side) - middle)
                   for side, middle in zip(field.shares.shape, field.centre))
  distance = np.maximum(rows[:, None], columns[None])
  return np.cumsum(np.bincount(distance.ravel(), field.shares.ravel()))


def half_side(field: Field) -> int:
  """Returns the side of the smallest square around the centre with half of the gradient."""
  return 2 * int(np.searchsorted(share_within(field), 0.5)) + 1


def draw(fields: Mapping[str, Field], path: str | pathlib.Path, title: str) -> None:
  """Draws the fields side by side on one logarithmic scale, and their sums over squares below.

  Args:
    fields: label -> field.
    path: of the picture.
    title: of the picture.
  """
  from matplotlib.colors import LogNorm
  from matplotlib.figure import Figure
  count = len(fields)
  figure = Figure(figsize=(max(7, 3.9 * count + 0.8), 6.9), layout='constrained')
  grid = figure.add_gridspec(2, count, height_ratios=(1.5, 1))
  axes = [figure.add_subplot(grid[0, i]) for i in range(count)]
  for axis, (label, field) in zip(axes, fields.items()):
    relative = field.shares / field.shares.max()
    image = axis.imshow(np.maximum(relative, 1e-9), cmap='cividis', norm=LogNorm(1e-4, 1))
    axis.plot(*field.centre[::-1], '+', color='black')
    side = half_side(field)
    axis.set_title(f'{label}\nhalf within {side} x {side} pixels', fontsize=10)
    axis.set(xlabel='x', ylabel='y')
  figure.colorbar(image, ax=axes, label='gradient / its maximum', shrink=0.8, extend='min')
  curves = figure.add_subplot(grid[1, :])
  for i, (label, field) in enumerate(fields.items()):
    shares = share_within(field)
    curves.plot(1 + 2 * np.arange(len(shares)), shares, _STYLES[i % len(_STYLES)], label=label,
                color=('#0072B2', '#D55E00', '#009E73', '#000000')[i % 4], linewidth=2)
  curves.set(xlabel='side of the square around the cross, in pixels',
             ylabel='share of the gradient', ylim=(0, 1.02))
  curves.set_xlim(left=0)
  curves.grid(alpha=0.3)
  curves.legend(frameon=False, fontsize=9)
  figure.suptitle(title, fontsize=12)
  save_figure(figure, path)
