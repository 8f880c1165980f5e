"""The search that picks FcaNet's frequencies, on images held out of the training split.

FcaNet's two-step criterion (Qin et al., ICCV 2021, sections 3.2 and 4.2): step 1 adds attention
with one frequency at a time to a trained network and fine-tunes it; step 2 does the same with the
k best ones, for several k.
"""
import dataclasses
import json
import pathlib
import time

import jax

from fcajax.analysis import search_report
from fcajax.analysis.search_checks import (
    base_config,
    check_frequencies,
    check_splits,
    sample_input,
    searched_model,
)
from fcajax.analysis.search_training import (
    FineTuning,
    fine_tune,
    held_out_accuracy,
    initial_states,
)
from fcajax.ops.dct import GRID
from fcajax.train import build, optimizer, workdir
from fcajax.train.errors import UserError
from fcajax.train.progress import duration

PARTIAL = 'search_partial'
# What may change between the runs of one search: how it is computed, not what.
_FREE = ('parallel', 'batching', 'top_k', 'select')


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """Keys of `config.search`.

  Attributes:
    base: work directory or .safetensors file of the network without attention; '' trains it, by
      the rest of the config, into WORKDIR/base.
    grid: (rows, columns) of the frequencies to score.
    num_epochs: of fine-tuning.
    num_steps: updates instead of epochs; 0 takes the epochs.
    learning_rate: at the start of fine-tuning; `config.optimizer.learning_rate_batch` applies.
    schedule: 'cosine', 'step' or 'constant'.
    seeds: how many runs of each candidate, with their own batches and attention weights.
    parallel: candidates trained together, as many as fit into memory.
    batching: 'auto', 'vmap' or 'loop'; see `search_training.FineTuning`.
    top_k: the k of step 2; () leaves it out.
    select: how many frequencies to select; 0 takes the best k of step 2.
  """
  base: str = ''
  grid: tuple[int, int] = (7, 7)
  num_epochs: float = 20
  num_steps: int = 0
  learning_rate: float = 0.02
  schedule: str = 'cosine'
  seeds: int = 3
  parallel: int = 7
  batching: str = 'auto'
  top_k: tuple[int, ...] = (1, 2, 4, 8, 16)
  select: int = 0

  @classmethod
  def from_config(cls, config):
    """Reads a ConfigDict or dict; an unknown key or a value out of range is a UserError."""
    values = workdir.plain(config)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
      if key not in known:
        raise UserError(f'unknown key search.{key}{build.near_matches(key, known)}; known are '
                        f'{", ".join(known)}')
    for key in ('grid', 'top_k'):
      if key in values:
        values[key] = tuple(int(value) for value in values[key])
    settings = cls(**values)
    for key in ('seeds', 'parallel'):
      if getattr(settings, key) < 1:
        raise UserError(f'config.search.{key}={getattr(settings, key)} must be at least 1')
    if len(settings.grid) != 2 or min(settings.grid) < 1:
      raise UserError(f'config.search.grid={settings.grid} must be a pair of positive ints')
    if settings.num_steps <= 0 and settings.num_epochs <= 0:
      raise UserError('set config.search.num_epochs or config.search.num_steps above 0')
    count = settings.grid[0] * settings.grid[1]
    for k in (*settings.top_k, settings.select or 1):
      if not 1 <= k <= count:
        raise UserError(f'config.search.top_k={settings.top_k}, select={settings.select}: the '
                        f'grid {settings.grid} has 1 to {count} frequencies')
    return settings


def run(config, directory, data, *, stream=None):
  """Searches the frequencies of `config`, or continues where the work directory stopped.

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
    data: as `input_pipeline.create` gives it, its evaluation batches being images held out of the
      training split.
    stream: where to print; None is standard output.

  Returns:
    The content of `search.json`. While the base network's training was stopped by a signal: its
    summary, with 'stopped_by'.

  Raises:
    UserError, ValueError: what the user gave cannot work; before anything is trained.
  """
  started = time.perf_counter()
  settings = SearchSettings.from_config(config.search)
  search = _Search(config, settings, pathlib.Path(directory), data, stream)
  with workdir.lock(directory):
    return _run(search, started)


def _run(search, started):
  settings = search.settings
  base = settings.base or search.train_base()
  if not isinstance(base, str | pathlib.Path):
    return base
  search.prepare(build.load_weights(base))
  single = search.score_all('step1', {_name(pair): [pair] for pair in search.pairs})
  accuracy = [[single[_name(pair)][s] for pair in search.pairs] for s in range(settings.seeds)]
  seeds = search.seeds
  ranked = search_report.summarize(settings.grid, accuracy, seeds, {}, 1)['ranked']
  step2 = search.score_all('step2', {str(k): ranked[:k] for k in settings.top_k})
  step2 = {int(k): step2[str(k)] for k in settings.top_k}
  report = search_report.summarize(settings.grid, accuracy, seeds, step2, settings.select)
  report['protocol'] = search.protocol(str(base))
  report['seconds'] = round(search.seconds_before + time.perf_counter() - started, 1)
  search.finish(report)
  return report


def _name(pair):
  return f'{pair[0]},{pair[1]}'


class _Search:
  """One call of `run`."""

  def __init__(self, config, settings, directory, data, stream):
    if jax.process_count() > 1:
      raise UserError(f'the search runs on the devices of one host, not on {jax.process_count()} '
                      'processes; start it on one')
    self.config, self.settings, self.directory, self.data = config, settings, directory, data
    self.stream = stream
    self.pairs = [(u, v) for u in range(settings.grid[0]) for v in range(settings.grid[1])]
    self.seeds = [config.seed + i for i in range(settings.seeds)]
    check_splits(config, data)
    self.sample = sample_input(data, config.dtype)
    self.model = searched_model(config, settings, data.num_classes)
    check_frequencies(self.model, settings, self.sample)
    steps_per_epoch = data.num_train // config.batch_size
    self.steps = settings.num_steps or max(1, round(settings.num_epochs * steps_per_epoch))
    rates = config.optimizer.copy_and_resolve_references()
    rates.learning_rate, rates.schedule = settings.learning_rate, settings.schedule
    rates.warmup_epochs = 0
    from fcajax.preprocess import device_transform
    self.tuning = FineTuning(
        model=self.model, optimizer=optimizer.make_optimizer(rates, config.freeze),
        schedule=optimizer.make_schedule(
            rates, steps_per_epoch=steps_per_epoch, total_steps=self.steps,
            batch_size=config.batch_size),
        steps=self.steps, transform=device_transform(data.preprocessing, config.dtype),
        augment=data.device_augment, label_smoothing=config.label_smoothing,
        accumulate_steps=config.optimizer.accumulate_steps, freeze=config.freeze,
        batching=settings.batching)
    if settings.base and not pathlib.Path(settings.base).exists():
      raise UserError(f"config.search.base='{settings.base}' does not exist; give a work directory "
                      "or a .safetensors file of the network without attention, or '' to train it")
    workdir.prepare(directory)
    self.partial = directory / PARTIAL
    self.partial.mkdir(exist_ok=True)
    self._claim()
    self.results = self._read_results()
    self.seconds_before = self.results['seconds']
    self._started = time.perf_counter()

  def _claim(self):
    """Records whose results the directory holds; raises UserError where they are another's."""
    fixed = workdir.plain(self.config)
    fixed['search'] = {k: v for k, v in fixed['search'].items() if k not in _FREE}
    changes = workdir.config_changes(self.partial, fixed)
    if changes:
      raise UserError(f'{self.partial} holds results of another search; it differs in\n'
                      + '\n'.join(changes)
                      + '\nchoose another --workdir, or delete it to start anew')
    workdir.write_json(self.partial / workdir.CONFIG_FILE, fixed)

  def line(self, text):
    print(text, file=self.stream, flush=True)

  def _read_results(self):
    path = self.partial / 'results.json'
    if not path.is_file():
      return {'step1': {}, 'step2': {}, 'seconds': 0.0}
    return json.loads(path.read_text())

  def train_base(self):
    """The directory of the trained base network; the summary where its training was stopped."""
    from fcajax.train import loop
    directory = self.directory / 'base'
    summary = loop.train(base_config(self.config), directory, self.data, stream=self.stream)
    return summary if 'stopped_by' in summary else directory

  def prepare(self, base):
    """Draws the states that all candidates start from."""
    self.states = initial_states(self.tuning, base, self.seeds, self.sample)

  def score_all(self, step, candidates):
    """Scores what the partial results lack; returns name -> accuracies of the seeds in percent."""
    done = self.results[step]
    waiting = [name for name in candidates if name not in done]
    if len(waiting) < len(candidates):
      self.line(f'{step}: {len(candidates) - len(waiting)} of {len(candidates)} candidates were '
                'scored before')
    size = self.settings.parallel
    started = time.perf_counter()
    for first in range(0, len(waiting), size):
      names = waiting[first:first + size]
      # A shorter last group would compile once more; repeating a candidate costs less.
      padded = names + names[-1:] * (min(size, len(waiting)) - len(names))
      runs = fine_tune(self.tuning, self.states, [candidates[name] for name in padded], self.data,
                       self.sample)
      accuracy = held_out_accuracy(self.tuning, runs, self.data)
      done.update({name: accuracy[:, i].tolist() for i, name in enumerate(names)})
      self.results['seconds'] = self.seconds_before + time.perf_counter() - self._started
      workdir.write_json(self.partial / 'results.json', self.results)
      count = first + len(names)
      left = (time.perf_counter() - started) / count * (len(waiting) - count)
      self.line(f'{step}: {count}/{len(waiting)} candidates, {duration(left)} left; '
                + ', '.join(f'{name}: {sum(done[name]) / len(done[name]):.2f}%' for name in names))
    return done

  def protocol(self, base):
    """What the accuracies are of: facts for `search.json`."""
    config, data = self.config, self.data
    return workdir.plain({
        'model': config.model.name, 'overrides': build.model_overrides(config), 'base': base,
        'steps': self.steps, 'batch_size': config.batch_size,
        'learning_rate': round(float(self.tuning.schedule(0)), 8),
        'schedule': self.settings.schedule,
        'optimizer': config.optimizer.name, 'weight_decay': config.optimizer.weight_decay,
        'label_smoothing': config.label_smoothing, 'dtype': config.dtype,
        'data': config.data.name or config.data.root or config.data.source,
        'train_split': config.data.train_split, 'held_out_split': config.data.eval_split,
        'train_images': data.num_train, 'held_out_images': data.num_evaluation,
        'image_size': config.data.image_size,
        'device': jax.devices()[0].device_kind, 'devices': len(jax.devices()),
    })

  def finish(self, report):
    path = self.directory / search_report.FILE_NAME
    workdir.write_json(path, report)
    from fcajax.analysis import plot_search
    plot_search.draw(report, self.directory / 'search.png')
    self.line(search_report.as_table(report))
    grid = '' if self.settings.grid == GRID else f', grid={self.settings.grid}'
    self.line(f"create_model('{self.config.model.name}', frequencies='{path}'{grid}) takes the "
              f"{len(report['selected'])} selected: {report['selected']}")
