"""Plots the accuracy of each single frequency, as FcaNet's figure 4 does."""
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def draw(report: Mapping[str, Any], path: str | pathlib.Path) -> None:
  """Draws the accuracies of a search as a heat map, the selected frequencies framed.

  Args:
    report: the content of `search.json`; only 'accuracy' is needed, 'std' and 'seeds' add the
      standard deviations, 'selected' the frames, 'protocol' the title.
    path: image file to write.
  """
  from matplotlib.figure import Figure
  from matplotlib.patches import Rectangle
  mean = np.asarray(report['accuracy'])
  std = np.asarray(report['std']) if len(report.get('seeds', ())) > 1 else None
  rows, columns = mean.shape
  # Wide enough for the title, however few frequencies there are.
  figure = Figure(figsize=(max(7.5, 2.2 + 0.95 * columns), max(3.2, 1.9 + 0.78 * rows)),
                  layout='constrained')
  axes = figure.subplots()
  # 'cividis' grows evenly in lightness for every kind of colour vision, and in print.
  image = axes.imshow(mean, cmap='cividis', aspect='auto')
  low, high = mean.min(), mean.max()
  for u, v in np.ndindex(rows, columns):
    text = f'{mean[u, v]:.2f}' + (f'\n±{std[u, v]:.2f}' if std is not None else '')
    dark = mean[u, v] < low + 0.55 * (high - low)
    axes.text(v, u, text, ha='center', va='center', fontsize=10,
              color='white' if dark else 'black')
  selected = report.get('selected', [])
  if len(selected) < mean.size:
    for u, v in selected:
      axes.add_patch(Rectangle((v - 0.45, u - 0.45), 0.9, 0.9, fill=False, lw=2.2, ec='white'))
      axes.add_patch(Rectangle((v - 0.45, u - 0.45), 0.9, 0.9, fill=False, lw=1.4, ec='#d81b60'))
  axes.set(xticks=range(columns), yticks=range(rows), xlabel='v: frequency along the width',
           ylabel='u: frequency along the height')
  axes.tick_params(length=0)
  protocol = report.get('protocol', {})
  title = ' on '.join(filter(None, (protocol.get('model'), protocol.get('data'))))
  axes.set_title(f'Held-out top-1 accuracy with one frequency{": " + title if title else ""}\n'
                 f'framed: the {len(selected)} selected', fontsize=11)
  figure.colorbar(image, label='top-1 accuracy, %', shrink=0.9)
  figure.savefig(path, dpi=150)
