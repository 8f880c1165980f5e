"""`create`: settings to a Pipeline, which hands out training and evaluation batches."""
from absl import logging

from fcajax.images import ImageError, decode_image
from input_pipeline import augment, device_augment, loader, memory, wire
from input_pipeline.normalization import make_preprocessing
from input_pipeline.settings import DataSettings
from input_pipeline.sources import load_splits


class Pipeline:
  """Where batches come from; see `create`.

  Attributes:
    num_train, num_evaluation: examples, over all processes.
    class_names: list of str, in the order of the labels.
    preprocessing: the `fcajax.preprocess.Preprocessing` of a model trained on this.
    note: what the user should know about the splits; '' for nothing.
    train_folder: of an image folder whose evaluation images have a folder of their own; else ''.
    device_augment: None, or a pure `augment(key, images)` that the training step calls first on
      `batch['image']`: uint8 `[N, H, W, 3]` to uint8 `[N, h, w, 3]`.
  """

  def __init__(self, splits, settings, preprocessing, *, batch_size, eval_batch_size, seed,
               process_index, process_count):
    self._settings, self._seed = settings, seed
    self._sizes = batch_size, eval_batch_size
    self._process = {'process_index': process_index, 'process_count': process_count}
    self._corrupt = {'train': {}, 'evaluation': {}}
    self.preprocessing = preprocessing
    self.class_names = list(splits.class_names)
    self.num_classes = len(self.class_names)
    self.note, self.train_folder = splits.note, splits.train_folder
    self.device_augment = None
    self._wire = wire.choose(settings, preprocessing)
    self._in_memory = memory.is_wanted(splits, settings, preprocessing)
    if self._in_memory:
      self.device_augment = device_augment.make(settings, preprocessing, splits.mirror)
      splits = memory.load(splits, settings, preprocessing, self.device_augment is not None,
                           self._note)
    elif settings.crop_padding:
      raise ValueError('data.crop_padding is for in-memory sets; set data.in_memory=True, or '
                       'crop_padding=0 for random resized crops')
    self._splits = splits
    self.num_train, self.num_evaluation = len(splits.train), len(splits.evaluation)

  def _note(self, split, source, indices):
    """Logs and counts images that were skipped; stops the run above the allowed share."""
    known = self._corrupt[split]
    for index in map(int, indices):
      if index not in known:
        known[index] = source.name(index)
        logging.warning('skipped %s image %s: %s', split, known[index], _reason(source, index))
    allowed = self._settings.max_corrupt_fraction * len(source)
    if known and (len(known) > allowed or len(known) == len(source)):
      names = ', '.join(sorted(known.values())[:5])
      raise loader.CorruptDataError(
          f'{len(known)} of {len(source)} {split} images cannot be decoded, more than '
          f'data.max_corrupt_fraction={self._settings.max_corrupt_fraction} allows (never all of '
          f'them): {names}{", ..." if len(known) > 5 else ""}. Repair or remove them, or raise the '
          'fraction')

  def corrupt_files(self):
    """Sorted names of the images that this process has skipped so far."""
    return sorted({name for names in self._corrupt.values() for name in names.values()})

  def train_iterator(self):
    """An endless iterator over batches {'image' uint8 `[B, h, w, 3]`, 'label' int32 `[B]`}.

    B is the batch size over the process count. The order, crops and flips depend on the data and
    the seed alone; see `loader.TrainIterator` for its state.
    """
    source, settings = self._splits.train, self._settings
    if self._in_memory:
      load = loader.Gather(source, evaluation=False)
    else:
      transform = augment.TrainTransform(settings, self.preprocessing, self._splits.mirror,
                                         self._seed, self._wire)
      load = loader.TrainBatch(source, transform, settings.threads)
    batches = loader.training_batches(
        len(source), batch_size=self._sizes[0], seed=self._seed, load=load, **self._process)
    order = {'seed': self._seed, 'examples': len(source), 'batch_size': self._sizes[0]}
    workers = 0 if self._in_memory else settings.workers

    def on_skipped(indices):
      self._note('train', source, indices)

    return loader.TrainIterator(batches, order, on_skipped, workers, settings.prefetch)

  def evaluation_batches(self):
    """Yields every validation image exactly once over all processes, in padded batches.

    Batches are {'image', 'label', 'mask' float32 `[B]`}: mask 0 marks padding and images that
    cannot be decoded. Every process yields `ceil(num_evaluation / eval_batch_size)` batches.
    """
    source, settings = self._splits.evaluation, self._settings
    if self._in_memory:
      load = loader.Gather(source, evaluation=True)
    else:
      transform = augment.EvaluationTransform(self.preprocessing, self._wire)
      load = loader.EvaluationBatch(source, transform, settings.threads)
    batches = loader.evaluation_batches(len(source), batch_size=self._sizes[1], load=load,
                                        **self._process)
    iterator = loader.iterate(batches, 0 if self._in_memory else settings.workers,
                              settings.prefetch)
    try:
      for batch in iterator:
        self._note('evaluation', source, batch.pop(loader.SKIPPED))
        yield batch
    finally:
      iterator.close()


def _reason(source, index):
  try:
    decode_image(source.read(index)[0])
  except (ImageError, OSError) as error:
    return str(error)
  return 'it cannot be decoded'


def _check_batch(name, size, process_count):
  if size < 1 or size % process_count:
    raise ValueError(f'{name}={size} must be a positive multiple of the {process_count} processes')


def create(data_config, *, batch_size, eval_batch_size, seed, process_index=None,
           process_count=None):
  """Opens the data set of a configuration.

  Args:
    data_config: `config.data`; see `settings.DataSettings`.
    batch_size, eval_batch_size: over all processes.
    seed: of the order, the augmentation and a held-out split.
    process_index, process_count: of this host; JAX's by default.
  Returns:
    A `Pipeline`.
  Raises:
    ValueError, FileNotFoundError: a setting or the data is not what it should be; raised before
      any image is decoded for a data set that is not kept in memory.
    loader.CorruptDataError: too many images of an in-memory set cannot be decoded.
  """
  settings = DataSettings.from_config(data_config)
  if process_index is None or process_count is None:
    import jax
    process_index, process_count = jax.process_index(), jax.process_count()
  if not 0 <= process_index < process_count:
    raise ValueError(f'process_index={process_index} must lie in 0..{process_count - 1}')
  _check_batch('batch_size', batch_size, process_count)
  _check_batch('eval_batch_size', eval_batch_size, process_count)
  preprocessing = make_preprocessing(settings)
  return Pipeline(load_splits(settings, seed), settings, preprocessing, batch_size=batch_size,
                  eval_batch_size=eval_batch_size, seed=seed, process_index=process_index,
                  process_count=process_count)
