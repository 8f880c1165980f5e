"""Learning curves: of one run, and of several runs in one picture."""
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fcajax.analysis.pictures import COLORS, save_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE = '#0072B2', '#D55E00'
# (split, key of the row, title, factor).
PANELS = (('train', 'loss', 'Training loss', 1),
          ('evaluation', 'accuracy', 'Evaluation top-1 (%)', 100))
Rows = Sequence[Mapping[str, Any]]


def draw_run(rows: Rows, path: str | pathlib.Path,
             panels: Sequence[tuple[str, str, float]]) -> None:
  """Draws each metric of one run over the epochs: a line for training, one for evaluations.

  Args:
    rows: of the run's `metrics.jsonl`, with 'epoch', 'split' ('train' or 'evaluation') and the
      metrics; None is left out.
    path: of the PNG file.
    panels: (key of the rows, title, factor of the values) of each panel.
  """
  figure, axes = _figure(len(panels), 4.5, 3.6)
  for axis, (key, _, factor) in zip(axes, panels):
    for split, color, label in (('train', BLUE, 'training'),
                                ('evaluation', ORANGE, 'evaluation')):
      points = _points(rows, split, key, factor)
      if points:
        marker = 'o' if split == 'evaluation' and len(points) <= 40 else None
        axis.plot(*zip(*points), color=color, label=label, marker=marker, markersize=3.5, lw=1.6)
    axis.set_ylim(bottom=0)
  _label(axes, [title for _, title, _ in panels])
  if axes[0].lines:
    axes[0].legend(frameon=False)
  save_figure(figure, path, dpi=130)


def draw_runs(runs: Mapping[str, Rows], path: str | pathlib.Path,
              panels: Sequence[tuple[str, str, str, float]] = PANELS) -> None:
  """Draws one panel for each metric over the epochs, a colour for each run.

  Args:
    runs: label -> rows of the run's `metrics.jsonl`, as `workdir.metrics_log.read_rows` returns
      them; at most as many runs as there are `COLORS`.
    path: of the picture.
    panels: (split, key of the row, title, factor) of each panel.
  """
  figure, axes = _figure(len(panels), 4.75, 3.8)
  for (label, rows), color in zip(runs.items(), COLORS):
    for axis, (split, key, _, factor) in zip(axes, panels):
      points = _points(rows, split, key, factor)
      if points:
        last = f': {points[-1][1]:.1f}' if split == 'evaluation' else ''
        axis.plot(*zip(*points), color=color, label=label + last, lw=1.6,
                  marker='o' if split == 'evaluation' else None, markersize=3.5)
  _label(axes, [title for _, _, title, _ in panels])
  axes[-1].set_ylim(bottom=0)
  # A run that stopped before its first evaluation has a line in the first panel alone.
  labelled = [axis for axis in axes if axis.lines]
  if labelled:
    labelled[-1].legend(frameon=False, fontsize=9)
  save_figure(figure, path, dpi=130)


def _points(rows: Rows, split: str, key: str, factor: float) -> list[tuple[float, float]]:
  return [(row['epoch'], factor * row[key]) for row in rows
          if row['split'] == split and row.get(key) is not None]


def _figure(panels: int, width: float, height: float) -> tuple[Any, Any]:
  from matplotlib.figure import Figure
  figure = Figure(figsize=(width * panels, height), layout='constrained')
  return figure, figure.subplots(1, panels, squeeze=False)[0]


def _label(axes: Iterable[Any], titles: Iterable[str]) -> None:
  for axis, title in zip(axes, titles):
    axis.set_title(title, loc='left', fontsize=11)
    axis.set_xlabel('epoch')
    axis.grid(alpha=0.25)
    axis.spines[['top', 'right']].set_visible(False)
