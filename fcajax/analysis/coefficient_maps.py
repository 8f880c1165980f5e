"""Pictures of what a network on block-DCT coefficients reads of an image."""
import pathlib

import numpy as np

from fcajax.analysis.pictures import save_figure
from fcajax.selection.coefficients import CoefficientSubset
from fcajax.typing import AnyArray, Num, UInt8

# Panels of the first coefficients of Y, Cb and Cr, (row, column).
_PANELS = (((0, 1), (0, 2), (1, 1), (1, 2)), ((0, 3), (1, 3)), ((0, 4), (1, 4)))


def draw(image: UInt8[np.ndarray, 'h w 3'], maps: Num[AnyArray, 'y x k'], subset: CoefficientSubset,
         path: str | pathlib.Path) -> None:
  """Draws the image, the subset on its 8 x 8 blocks, and a few maps of each component.

  Args:
    image: pixels.
    maps: their coefficients, as `rgb_to_coefficients` returns them.
    subset: which coefficients these are.
    path: of the picture.
  """
  from matplotlib.figure import Figure
  figure = Figure(figsize=(10, 4.4), layout='constrained')
  axes = figure.subplots(2, 5)
  for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
  axes[0, 0].imshow(image)
  axes[0, 0].set_title(f'{image.shape[0]} x {image.shape[1]} pixels', fontsize=9)
  chosen = np.zeros(192)
  chosen[subset.flat] = 1
  blocks = np.pad(chosen.reshape(3, 8, 8), ((0, 0), (0, 0), (1, 1)), constant_values=np.nan)
  axes[1, 0].imshow(np.concatenate(blocks, 1), cmap='Blues', vmin=-0.15, vmax=1.4)
  axes[1, 0].set_title(f'{len(subset)} of 192: Y, Cb, Cr', fontsize=9)

  start = 0
  for name, component, panels in zip(('Y', 'Cb', 'Cr'), subset.components, _PANELS):
    for offset, (index, panel) in enumerate(zip(component, panels)):
      values = np.asarray(maps[..., start + offset])
      limit = np.percentile(np.abs(values), 99) or 1
      axes[panel].imshow(values, cmap='gray', vmin=-limit, vmax=limit)
      axes[panel].set_title(f'{name} ({index // 8}, {index % 8})', fontsize=9)
    start += len(component)
  save_figure(figure, path, dpi=110)
