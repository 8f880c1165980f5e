"""The search that picks FcaNet's frequencies, on images held out of the training split.

FcaNet's two-step criterion (Qin et al., ICCV 2021, sections 3.2 and 4.2): step 1 adds attention
with one frequency at a time to a trained network and fine-tunes it; step 2 does the same with the
k best ones, for several k.
"""
import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import jax
import numpy as np

from fcajax import files, tasks
from fcajax.errors import UserError
from fcajax.ops.dct import GRID
from fcajax.search import plot, setup
from fcajax.search import report as search_report
from fcajax.search.checks import check_frequencies, check_splits
from fcajax.search.fine_tuning import FineTuning
from fcajax.search.scoring import fine_tune, held_out_accuracy, initial_states
from fcajax.search.settings import SearchSettings
from fcajax.train.progress import duration
from fcajax.workdir import layout as workdir

PARTIAL_FOLDER = 'search_partial'
# Settings that change how the results are computed or used, but not the results.
_MAY_CHANGE = ('parallel', 'batching', 'top_k', 'select')


def run(
    config: Any, directory: str | pathlib.Path, data: Any, *,
    stream: TextIO | None = None) -> dict[str, Any]:
  """Searches the frequencies of `config`, or continues the search in the work directory.

  1. Settings, splits and the frequencies at every layer's size are checked.
  2. The base network is trained (`fcajax.train.loop`) or loaded.
  3. Every frequency of the grid is scored, in groups of `config.search.parallel`; each finished
     group is written to WORKDIR/search_partial before the next one starts.
  4. The Top-k of `config.search.top_k` are scored in the same way.
  5. WORKDIR/search.json and search.png are written.

  Args:
    config: as `fcajax.train.loop.train` takes it, with `config.search` (see `SearchSettings`);
      see `configs/frequency_search.py`.
    directory: the work directory.
    data: as `fcajax.input_pipeline.create` gives it; its evaluation batches are images held out of
      the training split.
    stream: where to print; None is standard output.

  Returns:
    The content of `search.json`. If a signal stopped the training of the base network: the summary
    of that training, with 'stopped_by'.

  Raises:
    UserError: something that the user gave cannot work; before anything is trained.
  """
  started = time.perf_counter()
  directory = pathlib.Path(directory)
  settings = SearchSettings.from_config(config.search)
  if jax.process_count() > 1:
    raise UserError(f'the search runs on the devices of one host, not on {jax.process_count()} '
                    'processes; start it on one')
  check_splits(config, data)
  task = tasks.get(config.task)(config, data)
  model = setup.searched_model(config, settings, task)
  sample = setup.sample_input(task)
  check_frequencies(model, settings, sample)
  setup.check_base(settings)
  tuning = setup.make_fine_tuning(config, settings, model, task, data)

  workdir.prepare(directory)
  with workdir.lock(directory):
    partial = PartialResults.open(directory / PARTIAL_FOLDER, config)
    base = settings.base
    if not base:
      base = directory / 'base'
      summary = setup.train_base(config, base, data, stream)
      if 'stopped_by' in summary:
        return summary
    seeds = [config.seed + i for i in range(settings.seeds)]
    states = initial_states(tuning, setup.load_base(base), seeds, sample)
    scorer = _Scorer(tuning, states, data, sample, settings.parallel, partial, stream)

    pairs = [(u, v) for u in range(settings.grid[0]) for v in range(settings.grid[1])]
    single = scorer.score('step1', {f'{u},{v}': [(u, v)] for u, v in pairs})
    accuracy = np.array([single[f'{u},{v}'] for u, v in pairs]).T
    ranked = search_report.rank(accuracy.mean(axis=0).reshape(settings.grid))
    best = scorer.score('step2', {str(k): ranked[:k] for k in settings.top_k})

    report = search_report.summarize(
        settings.grid, accuracy, seeds, {k: best[str(k)] for k in settings.top_k}, settings.select)
    report['protocol'] = setup.protocol(config, settings, tuning, data, str(base))
    report['seconds'] = round(scorer.seconds_before + time.perf_counter() - started, 1)
    path = directory / search_report.FILE_NAME
    files.write_json(path, report)
    plot.draw(report, directory / 'search.png')
  grid = '' if settings.grid == GRID else f', grid={settings.grid}'
  print(search_report.as_table(report), file=stream)
  print(f"create_model('{config.model.name}', frequencies='{path}'{grid}) takes the "
        f"{len(report['selected'])} selected: {report['selected']}", file=stream, flush=True)
  return report


@dataclasses.dataclass
class PartialResults:
  """What the finished groups of a search scored, kept in a folder of its work directory.

  Attributes:
    directory: the folder.
    scores: 'step1' or 'step2' -> name of a candidate -> accuracies of the seeds in percent.
    seconds: spent on the search so far, over all its runs.
  """
  directory: pathlib.Path
  scores: dict[str, dict[str, list[float]]]
  seconds: float

  @classmethod
  def open(cls, directory: pathlib.Path, config: Any) -> 'PartialResults':
    """Reads the results in `directory`, or starts new ones.

    Raises:
      UserError: the results there are those of another config.
    """
    directory.mkdir(exist_ok=True)
    fixed = workdir.plain(config)
    fixed['search'] = {k: v for k, v in fixed['search'].items() if k not in _MAY_CHANGE}
    changes = workdir.config_changes(directory, fixed)
    if changes:
      raise UserError(f'{directory} holds results of another search; it differs in\n'
                      + '\n'.join(changes)
                      + '\nchoose another --workdir, or delete it to start anew')
    files.write_json(directory / workdir.CONFIG_FILE, fixed)
    path = directory / 'results.json'
    if not path.is_file():
      return cls(directory, {'step1': {}, 'step2': {}}, 0.0)
    results = json.loads(path.read_text())
    return cls(directory, {step: results[step] for step in ('step1', 'step2')}, results['seconds'])

  def write(self) -> None:
    """Writes the results to the folder."""
    files.write_json(self.directory / 'results.json', self.scores | {'seconds': self.seconds})


class _Scorer:
  """Scores candidates in groups, from the same states, and records every finished group."""

  def __init__(self, tuning: FineTuning, states: Any, data: Any, sample: jax.ShapeDtypeStruct,
               parallel: int, partial: PartialResults, stream: TextIO | None):
    self._tuning, self._states, self._data, self._sample = tuning, states, data, sample
    self._parallel, self._partial, self._stream = parallel, partial, stream
    self._started = time.perf_counter()
    self.seconds_before = partial.seconds

  def score(self, step: str, candidates: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """Scores the candidates that have no result yet.

    Args:
      step: 'step1' or 'step2'.
      candidates: name -> pairs (u, v).

    Returns:
      Name -> accuracies of the seeds in percent.
    """
    done = self._partial.scores[step]
    waiting = [name for name in candidates if name not in done]
    if len(waiting) < len(candidates):
      self._print(f'{step}: {len(candidates) - len(waiting)} of {len(candidates)} candidates were '
                  'scored before')
    started = time.perf_counter()
    for first in range(0, len(waiting), self._parallel):
      names = waiting[first:first + self._parallel]
      # A shorter last group would compile once more; repeating a candidate costs less.
      padded = names + names[-1:] * (min(self._parallel, len(waiting)) - len(names))
      runs = fine_tune(self._tuning, self._states, [candidates[name] for name in padded],
                       self._data, self._sample)
      accuracy = held_out_accuracy(self._tuning, runs, self._data)
      done.update({name: accuracy[:, i].tolist() for i, name in enumerate(names)})
      self._partial.seconds = self.seconds_before + time.perf_counter() - self._started
      self._partial.write()
      count = first + len(names)
      left = (time.perf_counter() - started) / count * (len(waiting) - count)
      self._print(
          f'{step}: {count}/{len(waiting)} candidates, {duration(left)} left; '
          + ', '.join(f'{name}: {sum(done[name]) / len(done[name]):.2f}%' for name in names))
    return done

  def _print(self, text: str) -> None:
    print(text, file=self._stream, flush=True)
