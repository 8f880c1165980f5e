"""How often a gate opens each coefficient over a set of images: the heat maps of Fig. 5.

A heat map is a JSON-able dict:

  coefficients        what the gate sees, as a full subset string
  images              how many were counted
  open_fraction       one number in 0..1 a coefficient, in the same order: the mean over the images
                      of p(on) = sigmoid(on - off), the share that a sampling gate opens
  open_at_evaluation  the share that the gate opens in evaluation, where it does not sample; it
                      tells apart only what lies on different sides of p(on) = 1/2
"""
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.ops.coefficients import COMPONENTS, coefficient_subset

FILE_NAME = 'gate_heat_map.json'


def _require_gate(model):
  if not getattr(model, 'gate', False):
    raise ValueError(f'{type(model).__name__} has no gate; train one with gate=True, for example '
                     "create_model('dct_resnet50', coefficients='192', gate=True)")


def gate_heat_map(model, variables, batches, transform=None):
  """Measures a gate, in evaluation mode.

  Args:
    model: a network of `create_model(..., gate=True)`.
    variables: {'params', 'batch_stats'}.
    batches: iterable of dicts with 'image' and optionally 'mask' `[N]` (0 leaves an image out).
    transform: pure function from 'image' to the model's input (`device_transform`); None where
      'image' already holds coefficients.
  Returns:
    The heat map.
  Raises:
    ValueError: the model has no gate, or there is no image.
  """
  _require_gate(model)

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
    raise ValueError('there is no image to count gates over; give a validation set that is not '
                     'empty')
  expected, at_evaluation = (total / images).tolist()
  return {
      'coefficients': coefficient_subset(model.coefficients).spec,
      'images': images,
      'open_fraction': expected,
      'open_at_evaluation': at_evaluation,
  }


def save_heat_map(heat_map, path):
  """Writes the JSON file that `fcajax select` and `coefficients='24D:FILE'` read."""
  pathlib.Path(path).write_text(json.dumps(heat_map, indent=1) + '\n')


def as_blocks(heat_map):
  """The fractions as three 8 x 8 blocks `[3, 8, 8]`, NaN where the gate sees no coefficient."""
  blocks = np.full(192, np.nan)
  blocks[coefficient_subset(heat_map['coefficients']).flat] = heat_map['open_fraction']
  return blocks.reshape(3, 8, 8)


def counted(heat_map):
  """How many images it is of, in words: a heat map written by hand need not say."""
  images = heat_map.get('images')
  return f'{images:,} images' if isinstance(images, int) else 'an unknown number of images'


def draw(heat_map, path):
  """Draws the three heat maps, Y, Cb and Cr, as one PNG, SVG or PDF file.

  Args:
    heat_map: as `gate_heat_map` returns it.
    path: of the picture.
  """
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
  figure.savefig(path, dpi=110)
