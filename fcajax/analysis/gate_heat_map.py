"""How often a gate opens each coefficient over a set of images: the heat maps of Fig. 5.

A heat map is a JSON-able dict:

  coefficients        what the gate reads, as a full subset string
  images              how many images were counted
  open_fraction       one number in 0..1 for each coefficient, in the same order: the mean over the
                      images of p(on) = sigmoid(on - off), the share that a sampling gate opens
  open_at_evaluation  the share that the gate opens in evaluation, where it does not sample: 1 for
                      an image with p(on) > 1/2, else 0
"""
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.analysis.pictures import save_figure
from fcajax.errors import UserError, writing
from fcajax.selection.coefficients import COMPONENTS, coefficient_subset
from fcajax.typing import Array, Float, PyTree

FILE_NAME = 'gate_heat_map.json'
PICTURE_NAME = 'gate_heat_map.png'


def gate_heat_map(
    model: Any, variables: PyTree, batches: Iterable[Mapping[str, Any]],
    transform: Callable[[Any], Array] | None = None,
) -> dict[str, Any]:
  """Measures how often a gate opens each coefficient, in evaluation mode.

  Args:
    model: a network of `create_model(..., gate=True)`.
    variables: {'params', 'batch_stats'}.
    batches: dicts with 'image' and optionally 'mask' `[N]` (0 leaves an image out).
    transform: from 'image' to the input of the network, as `device_transform` returns it; None
      where 'image' already holds coefficients.

  Returns:
    The heat map.

  Raises:
    UserError: the model has no gate, or there is no image.
  """
  if not getattr(model, 'gate', False):
    raise UserError(f'{type(model).__name__} has no gate; train one with gate=True, for example '
                    "create_model('dct_resnet50', coefficients='192', gate=True)")

  @jax.jit
  def opened(variables, image, mask):
    x = image if transform is None else transform(image)
    _, state = model.apply(variables, x, train=False, mutable=['intermediates'])
    sown = state['intermediates']['gate']
    off, on = jnp.moveaxis(sown['logits'][0], -1, 0)
    shares = jnp.stack([jax.nn.sigmoid(on - off), sown['open'][0]])
    # Selected, not multiplied: padding may hold values that are not finite.
    return jnp.where(mask[:, None] > 0, shares, 0.0).sum(1)

  total, images = 0.0, 0
  for batch in batches:
    image = batch['image']
    mask = np.asarray(batch.get('mask', np.ones(len(image), np.float32)))
    total = total + np.asarray(opened(variables, image, mask), np.float64)
    images += int((mask > 0).sum())
  if not images:
    raise UserError('there is no image to count gates over; give a validation set that is not '
                    'empty')
  expected, at_evaluation = (total / images).tolist()
  return {
      'coefficients': coefficient_subset(model.coefficients).spec,
      'images': images,
      'open_fraction': expected,
      'open_at_evaluation': at_evaluation,
  }


def save_heat_map(heat_map: Mapping[str, Any], path: str | pathlib.Path) -> None:
  """Writes the JSON file that `fcajax select` and `coefficients='24D:FILE'` read."""
  with writing(path):
    pathlib.Path(path).write_text(json.dumps(heat_map, indent=1) + '\n')


def as_blocks(heat_map: Mapping[str, Any]) -> Float[np.ndarray, '3 8 8']:
  """Returns the fractions of Y, Cb and Cr as blocks; NaN where the gate reads no coefficient."""
  blocks = np.full(192, np.nan)
  blocks[coefficient_subset(heat_map['coefficients']).flat] = heat_map['open_fraction']
  return blocks.reshape(3, 8, 8)


def counted(heat_map: Mapping[str, Any]) -> str:
  """Returns the number of images in words; a heat map written by hand may not name it."""
  images = heat_map.get('images')
  return f'{images:,} images' if isinstance(images, int) else 'an unknown number of images'


def draw(heat_map: Mapping[str, Any], path: str | pathlib.Path) -> None:
  """Draws the three heat maps, Y, Cb and Cr, as one picture."""
  from matplotlib import colormaps
  from matplotlib.figure import Figure
  figure = Figure(figsize=(11, 4), layout='constrained')
  axes = figure.subplots(1, 3)
  shown = colormaps['viridis'].with_extremes(bad='0.9')
  for axis, name, block in zip(axes, COMPONENTS, as_blocks(heat_map)):
    picture = axis.imshow(block, cmap=shown, vmin=0, vmax=1)
    for index in range(64):
      u, v = divmod(index, 8)
      value = block[u, v]
      axis.text(v, u, index, ha='center', va='center', fontsize=7,
                color='black' if np.isnan(value) or value > 0.6 else 'white')
    axis.set(title=name.capitalize(), xlabel='v, horizontal frequency', xticks=range(8),
             yticks=range(8))
  axes[0].set_ylabel('u, vertical frequency')
  figure.colorbar(picture, ax=axes, shrink=0.8,
                  label=f'mean p(on) over {counted(heat_map)}')
  save_figure(figure, path, dpi=110)
