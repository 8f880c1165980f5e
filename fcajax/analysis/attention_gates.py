"""Gate values of the attention layers, by stage, channel and class."""
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from fcajax.analysis.pictures import save_figure
from fcajax.errors import UserError
from fcajax.typing import Array, Float, Integer, PyTree, UInt8

GROUPS = ('folder', 'prediction', 'image')


def gate_values(
    model: Any, variables: PyTree, images: UInt8[np.ndarray, 'n h w 3'],
    transform: Callable[[Any], Array], batch_size: int = 16,
) -> tuple[dict[str, Float[np.ndarray, 'n _']], Integer[np.ndarray, ' n']]:
  """Computes the gate values of every attention layer that reports them.

  Args:
    model: a network of `create_model`.
    variables: its variables.
    images: pixels.
    transform: from pixels to the input of the network, as `device_transform` returns it.
    batch_size: number of images at a time.

  Returns:
    (module path such as 'stage1/block0/attention' -> gate values, predicted classes).

  Raises:
    UserError: the network has no layer with a gate.
  """
  @jax.jit
  def forward(variables, batch):
    logits, state = model.apply(
        variables, transform(batch), train=False, mutable=['intermediates'])
    found = {'/'.join(part.key for part in path[:-2]): value for path, value in
             jax.tree_util.tree_leaves_with_path(state.get('intermediates', {}))
             if getattr(path[-2], 'key', None) == 'gate' and value.ndim == 2}
    return found, logits.argmax(axis=-1)

  gates, predicted = {}, []
  for start in range(0, len(images), batch_size):
    found, classes = forward(variables, images[start:start + batch_size])
    predicted.append(np.asarray(classes))
    for layer, value in found.items():
      gates.setdefault(layer, []).append(np.asarray(value))
  if not gates:
    raise UserError('the network has no attention layer with a gate; use a model built with '
                    "attention='fca', 'se', 'eca' or 'cbam'")
  gates = {layer: np.concatenate(values) for layer, values in gates.items()}
  return gates, np.concatenate(predicted)


def choose_blocks(gates: Mapping[str, Any], block: int) -> dict[str, Any]:
  """Selects the layers of one block of each stage.

  Args:
    gates: of `gate_values`.
    block: index of the block among those with attention in its stage; may be negative.

  Returns:
    Path of the block, such as 'stage1/block0' -> gate values.

  Raises:
    UserError: a stage has no such block.
  """
  by_stage = {}
  for layer in gates:
    by_stage.setdefault(layer.split('/')[0], []).append(layer)
  chosen = {}
  for stage in sorted(by_stage):
    layers = sorted(by_stage[stage], key=lambda layer: (len(layer), layer))
    if not -len(layers) <= block < len(layers):
      raise UserError(f'--block {block}: {stage} has {len(layers)} blocks with attention, '
                      f'0 to {len(layers) - 1}')
    chosen[layers[block].rpartition('/')[0]] = gates[layers[block]]
  return chosen


def group_names(
    files: Sequence[pathlib.Path], predicted: Sequence[int] | Integer[np.ndarray, ' n'],
    class_names: Sequence[str] | None, by: Literal['folder', 'prediction', 'image'] | None = None,
) -> list[str]:
  """Returns the name of the group that each image belongs to.

  Args:
    files: image files.
    predicted: their predicted classes.
    class_names: names of the classes; None for 'class 0', ...
    by: what makes a group; None for the folders where there is more than one, else the images.
  """
  folders = [file.resolve().parent.name for file in files]
  if by is None:
    by = 'folder' if len(set(folders)) > 1 else 'image'
  if by == 'folder':
    return folders
  if by == 'prediction':
    return [class_names[i] if class_names else f'class {i}' for i in predicted]
  return [file.stem for file in files]


def draw(means: Mapping[str, Float[np.ndarray, 'rows _']], rows: Sequence[str],
         path: str | pathlib.Path, title: str) -> None:
  """Draws a panel for each layer: a row for each group of images, a column for each channel.

  Args:
    means: layer -> mean gate values in 0..1.
    rows: names of the groups.
    path: of the picture.
    title: of the picture.
  """
  from matplotlib.figure import Figure
  figure = Figure(figsize=(10, (0.9 + 0.24 * len(rows)) * len(means) + 0.9), layout='constrained')
  axes = figure.subplots(len(means), 1, squeeze=False)[:, 0]
  for axis, (layer, values) in zip(axes, means.items()):
    image = axis.imshow(values, cmap='cividis', vmin=0, vmax=1, aspect='auto',
                        interpolation='nearest')
    axis.set_yticks(range(len(rows)), [_shorten(row) for row in rows], fontsize=8)
    spread = (f', standard deviation between rows {values.std(axis=0).mean():.3f}'
              if len(rows) > 1 else '')
    axis.set_title(f'{layer}: mean gate {values.mean():.3f}{spread}', loc='left', fontsize=10)
    axis.tick_params(length=2)
  axes[-1].set_xlabel('channel')
  figure.colorbar(image, ax=axes, label='gate value', shrink=min(1.0, 0.5 + 0.5 / len(means)))
  figure.suptitle(f'Channel attention, {title}', fontsize=12)
  save_figure(figure, path)


def _shorten(text: str, length: int = 28) -> str:
  return text if len(text) <= length else text[:length - 3] + '...'
