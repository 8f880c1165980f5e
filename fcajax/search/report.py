"""From the accuracies of a frequency search to a ranking, an F test and `search.json`."""
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import fdtrc

from fcajax.errors import NotFoundError, UserError
from fcajax.typing import Float

FILE_NAME = 'search.json'


def rank(accuracy: Any, lowest: bool = False) -> list[tuple[int, int]]:
  """Orders the frequencies of a grid by accuracy, best first (FcaNet, section 3.2, step 1).

  Equal accuracies keep the order of the grid, row by row.

  Args:
    accuracy: `[U, V]`, finite; row u is the frequency along the height, column v along the width.
    lowest: worst first instead: the paper's Bot-k.

  Returns:
    All `U * V` pairs `(u, v)`.

  Raises:
    UserError: `accuracy` is no finite grid.
  """
  accuracy = np.asarray(accuracy, np.float64)
  if accuracy.ndim != 2 or not np.isfinite(accuracy).all():
    raise UserError(f'accuracy must be a finite [U, V] grid; got shape {accuracy.shape} with '
                    f'{np.count_nonzero(~np.isfinite(accuracy))} values that are not finite')
  order = np.argsort(accuracy.ravel() if lowest else -accuracy.ravel(), kind='stable')
  return [divmod(int(i), accuracy.shape[1]) for i in order]


def frequency_noise(accuracy: Float[np.ndarray, 'seeds frequencies']) -> dict[str, Any] | None:
  """Tests whether the frequencies differ by more than the noise between seeds.

  Seeds see different batches, but within a seed all frequencies see the same, so a seed shifts
  them together. The model is `accuracy[s, f] = mean + seed[s] + frequency[f] + noise`, a two-way
  analysis of variance without replication.

  Returns:
    'f' the F statistic (variance between frequencies over noise variance), 'degrees' its two
    degrees of freedom, 'p' its p-value, 'noise_std' the standard deviation of the noise and
    'difference_std_error' the standard error of the difference of two frequencies' means. None
    for fewer than two seeds or two frequencies.
  """
  seeds, frequencies = accuracy.shape
  if seeds < 2 or frequencies < 2:
    return None
  by_frequency = accuracy.mean(axis=0)
  residual = accuracy - by_frequency - accuracy.mean(axis=1, keepdims=True) + accuracy.mean()
  degrees = (frequencies - 1, (frequencies - 1) * (seeds - 1))
  noise = (residual**2).sum() / degrees[1]
  signal = seeds * by_frequency.var(ddof=1)
  ratio = float(signal / noise) if noise > 0 else float('inf') if signal > 0 else 0.0
  return {
      'f': ratio, 'degrees': list(degrees), 'p': float(fdtrc(*degrees, ratio)),
      'noise_std': float(np.sqrt(noise)),
      'difference_std_error': float(np.sqrt(2 * noise / seeds)),
  }


def statement(accuracy_by_seed: Any, grid: Sequence[int]) -> str:
  """Writes one paragraph that says whether the ranking means something.

  Args:
    accuracy_by_seed: `[seeds, frequencies]` in percent, frequencies row by row of the grid.
    grid: `(U, V)`.
  """
  accuracy = np.asarray(accuracy_by_seed, np.float64)
  mean = accuracy.mean(axis=0)
  best, worst = (divmod(int(i), grid[1]) for i in (mean.argmax(), mean.argmin()))
  text = (f'Best frequency {best} at {mean.max():.2f}%, worst {worst} at {mean.min():.2f}%, '
          f'{len(accuracy)} seed{"s" if len(accuracy) > 1 else ""}. ')
  noise = frequency_noise(accuracy)
  if noise is None:
    return text + 'One seed measures no noise: take at least 3 before reading the ranking.'
  error = noise['difference_std_error']
  within = int((mean.max() - mean <= 2 * error).sum()) - 1
  test = (f"F({noise['degrees'][0]}, {noise['degrees'][1]}) = {noise['f']:.2f}, "
          f"p = {noise['p']:.2g}")
  if noise['p'] > 0.05:
    verdict = f'The differences between the frequencies are within noise ({test}). '
  else:
    verdict = f'The frequencies differ by more than noise ({test}). '
  return (f'{text}{verdict}The difference of two means has a standard error of {error:.2f} '
          f'points; {within} of the other {len(mean) - 1} frequencies lie within two standard '
          'errors of the best.')


def summarize(
    grid: Sequence[int], accuracy_by_seed: Any, seeds: Sequence[int],
    step2: Mapping[int, Sequence[float]], select: int) -> dict[str, Any]:
  """Computes the content of `search.json` except for 'protocol' and 'seconds'.

  Args:
    grid: `(U, V)`.
    accuracy_by_seed: `[seeds, U * V]` in percent.
    seeds: the seeds.
    step2: k -> accuracies of the seeds in percent, for every Top-k that was scored.
    select: number of frequencies to select; 0 takes the k with the best mean in step 2 (the
      smallest of equals), or 16 if step 2 was skipped.
  """
  accuracy = np.asarray(accuracy_by_seed, np.float64).reshape(len(seeds), *grid)
  mean = accuracy.mean(axis=0)
  ranked = rank(mean)
  scores = {int(k): {'mean': float(np.mean(v)), 'std': _std(v), 'by_seed': list(map(float, v))}
            for k, v in sorted(step2.items())}
  if not select:
    select = min(scores, key=lambda k: (-scores[k]['mean'], k)) if scores else 16
  selected = ranked[:select]
  return {
      'grid': list(grid), 'unit': 'percent', 'seeds': list(seeds),
      'accuracy': mean.tolist(), 'std': np.apply_along_axis(_std, 0, accuracy).tolist(),
      'accuracy_by_seed': accuracy.tolist(),
      'ranked': [list(pair) for pair in ranked], 'selected': [list(pair) for pair in selected],
      'step2': {str(k): value for k, value in scores.items()},
      'noise': frequency_noise(accuracy.reshape(len(seeds), -1)),
      'statement': statement(accuracy.reshape(len(seeds), -1), grid),
  }


def _std(values) -> float:
  """Returns the sample standard deviation; 0 for one value."""
  values = np.asarray(values, np.float64)
  return float(values.std(ddof=1)) if values.size > 1 else 0.0


def as_table(report: Mapping[str, Any]) -> str:
  """Formats the ranking with means and standard deviations, step 2 and the statement as text."""
  mean, std = np.asarray(report['accuracy']), np.asarray(report['std'])
  lines = ['rank  (u, v)  accuracy %  +- std']
  for i, (u, v) in enumerate(report['ranked'], 1):
    lines.append(f'{i:4d}  ({u}, {v})  {mean[u, v]:10.2f}  {std[u, v]:6.2f}')
  if report['step2']:
    lines += ['', 'Top-k  accuracy %  +- std']
    for k, score in report['step2'].items():
      lines.append(f"{k:>5}  {score['mean']:10.2f}  {score['std']:6.2f}")
  return '\n'.join([*lines, '', report['statement']])


def load_report(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads a `search.json`, or the one in a work directory.

  Raises:
    NotFoundError: there is no such file.
    UserError: the file is not the result of a search; names what is wrong.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / FILE_NAME
  if not path.is_file():
    raise NotFoundError(f"no search result at '{path}'; a search writes {FILE_NAME} into its work "
                        'directory')
  try:
    report = json.loads(path.read_text())
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise UserError(f"'{path}' is not JSON ({error}); give the {FILE_NAME} of a search") from None
  missing = [key for key in ('grid', 'accuracy', 'ranked', 'selected')
             if not isinstance(report, dict) or key not in report]
  if missing:
    raise UserError(f"'{path}' has no {missing}; give the {FILE_NAME} of a search")
  if np.shape(report['accuracy']) != tuple(report['grid']):
    raise UserError(f"'{path}': accuracy has shape {np.shape(report['accuracy'])}, its grid is "
                    f"{report['grid']}")
  return report
