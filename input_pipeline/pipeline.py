"""`create`: settings to a `Pipeline`, which hands out training and evaluation batches."""
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from absl import logging

from fcajax.errors import UserError
from fcajax.input_pipeline import loader, registry
from fcajax.input_pipeline.order import (
  EvaluationOrder,
  GroupedOrder,
  Share,
  ShuffledOrder,
  endless_batches,
)
from fcajax.input_pipeline.reading import (
  SKIPPED,
  ArrayReader,
  CorruptDataError,
  EvaluationReader,
  TrainReader,
)
from fcajax.input_pipeline.settings import LoaderSettings
from fcajax.input_pipeline.sources.base import ArrayExamples, Batch, DataSet


class _Damaged:
  """The examples that were skipped, by split; stops the run above the allowed share."""

  def __init__(self, max_fraction, unit):
    self._max_fraction, self._unit = max_fraction, unit
    self._known = {'train': set(), 'evaluation': set()}

  def add(self, split, count, skipped):
    """Logs and counts (name, reason) of examples out of a split of `count`."""
    known = self._known[split]
    for name, reason in skipped:
      if name not in known:
        known.add(name)
        logging.warning('skipped %s %s %s: %s', split, self._unit, name, reason)
    if known and (len(known) > self._max_fraction * count or len(known) == count):
      names = ', '.join(sorted(known)[:5])
      raise CorruptDataError(
          f'{len(known)} of {count} {split} {self._unit}s cannot be decoded, more than '
          f'data.max_corrupt_fraction={self._max_fraction} allows (never all of them): {names}'
          f'{", ..." if len(known) > 5 else ""}. Repair or remove them, or raise the fraction')

  def names(self):
    return sorted(set.union(*self._known.values()))


class Pipeline:
  """Where batches come from; see `create`.

  Attributes:
    data_set: the `DataSet` that the data source returned, for what its task alone knows.
    num_train, num_evaluation: examples, over all processes.
    class_names: in the order of the labels.
    num_classes: their number.
    preprocessing: the `fcajax.preprocessing.spec.Preprocessing` of a model trained on this.
    note, train_folder, device_augment: see `DataSet`.
  """

  def __init__(self, data_set: DataSet, settings: LoaderSettings, *, batch_size: int,
               eval_batch_size: int, seed: int, share: Share):
    self.data_set = data_set
    self._settings, self._seed, self._share = settings, seed, share
    self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
    self._damaged = _Damaged(settings.max_corrupt_fraction, data_set.unit)
    for split, (count, skipped) in data_set.left_out.items():
      self._damaged.add(split, count, skipped)
    self.num_train, self.num_evaluation = len(data_set.train), len(data_set.evaluation)
    self.class_names = list(data_set.class_names)
    self.num_classes = len(self.class_names)
    self.preprocessing, self.device_augment = data_set.preprocessing, data_set.device_augment
    self.note, self.train_folder = data_set.note, data_set.train_folder

  def corrupt_files(self) -> list[str]:
    """Returns the names of the examples that this process has skipped so far, sorted."""
    return self._damaged.names()

  def _skip(self, split, examples, skipped):
    self._damaged.add(
        split, len(examples), [(examples.name(index), reason) for index, reason in skipped])

  def train_iterator(self) -> loader.TrainIterator:
    """Returns an endless iterator over training batches.

    A batch holds `batch_size` over the process count examples: for images {'image' uint8
    `[B, h, w, 3]`, 'label' int32 `[B]`}, for other tasks what their data source says. The order and
    the random numbers depend on the data and the seed alone; see `loader.TrainIterator` for the
    state.
    """
    examples, settings = self.data_set.train, self._settings
    count, groups = len(examples), getattr(examples, 'groups', None)
    state = {'seed': self._seed, 'examples': count, 'batch_size': self._batch_size}
    if groups is None:
      order = ShuffledOrder(count, self._batch_size, self._seed, self._share)
    else:
      order = GroupedOrder(groups, self._batch_size, self._seed, self._share)
      state['groups'] = order.sizes
    in_memory = isinstance(examples, ArrayExamples)
    if in_memory:
      read = ArrayReader(examples, evaluation=False)
    else:
      read = TrainReader(examples, self._seed, settings.threads)
    return loader.TrainIterator(
        loader.batches_of(endless_batches(self._batch_size), order, read), state,
        lambda skipped: self._skip('train', examples, skipped),
        0 if in_memory else settings.workers, settings.prefetch)

  def evaluation_batches(self) -> Iterator[Batch]:
    """Yields every evaluation example exactly once over all processes, in padded batches.

    Batches also hold 'mask' float32 `[B]`, which is 0 for padding and for examples that cannot be
    read. Every process yields the same number of batches.
    """
    examples, settings = self.data_set.evaluation, self._settings
    order = EvaluationOrder(len(examples), getattr(examples, 'groups', None),
                            self._eval_batch_size, self._share)
    in_memory = isinstance(examples, ArrayExamples)
    if in_memory:
      read = ArrayReader(examples, evaluation=True)
    else:
      read = EvaluationReader(examples, settings.threads)
    iterator = loader.iterate(loader.batches_of(len(order), order, read),
                              0 if in_memory else settings.workers, settings.prefetch)
    try:
      for batch in iterator:
        self._skip('evaluation', examples, batch.pop(SKIPPED))
        yield batch
    finally:
      iterator.close()


def _check_batch(name, size, process_count):
  if size < 1 or size % process_count:
    raise UserError(f'{name}={size} must be a positive multiple of the {process_count} processes')


def create(data_config: Mapping[str, Any] | Any, *, batch_size: int, eval_batch_size: int,
           seed: int, process_index: int | None = None,
           process_count: int | None = None) -> Pipeline:
  """Opens the data set of a configuration.

  Args:
    data_config: `config.data`, a ConfigDict or a dict; its keys are the fields of the data source's
      settings, `settings.DataSettings` for images and labels.
    batch_size, eval_batch_size: over all processes.
    seed: of the order, the augmentation and a held-out split.
    process_index, process_count: of this host; JAX's by default.
  Raises:
    UserError: a setting or the data is not what it should be; raised before any image is decoded
      for a data set that is not kept in memory.
    CorruptDataError: too many images of an in-memory set cannot be decoded.
  """
  values = data_config.to_dict() if hasattr(data_config, 'to_dict') else dict(data_config)
  source = registry.find(values.get('source', LoaderSettings.source))
  settings = registry.settings_class(source).from_config(values)
  if process_index is None or process_count is None:
    process_index, process_count = jax.process_index(), jax.process_count()
  if not 0 <= process_index < process_count:
    raise UserError(f'process_index={process_index} must lie in 0..{process_count - 1}')
  _check_batch('batch_size', batch_size, process_count)
  _check_batch('eval_batch_size', eval_batch_size, process_count)
  return Pipeline(source(settings, seed), settings, batch_size=batch_size,
                  eval_batch_size=eval_batch_size, seed=seed,
                  share=Share(process_index, process_count))
