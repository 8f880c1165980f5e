"""Batches out of sources with Grain: order, sharding, decoding in parallel, exact state."""
import concurrent.futures
import os
import signal
import weakref

import cv2
import grain
import numpy as np
import threadpoolctl
from absl import flags

from fcajax.images import ImageError

SKIPPED = 'skipped'
_CHUNK = 8  # images a task of the thread pool decodes: fewer tasks, and still an even load
_SUBSTITUTES = 64
_ENDLESS = 1 << 62  # examples; the length of a Grain data set must stay below sys.maxsize


class CorruptDataError(RuntimeError):
  """More images than allowed cannot be decoded."""


def available_cores():
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


class Decoder:
  """Fills batches in parallel threads; the pool is made in the process that first uses it."""

  def __init__(self, threads):
    self._threads = threads or min(16, available_cores())
    self._pool = None

  def __getstate__(self):
    return {**self.__dict__, '_pool': None}

  def fill(self, count, one):
    """Calls `one(slot)` for every slot; returns what the calls returned, flattened."""
    if self._threads == 1 or count <= _CHUNK:
      return [index for slot in range(count) for index in one(slot)]
    if self._pool is None:
      # Threads of OpenCV and of NumPy's matrix products would compete with these.
      cv2.setNumThreads(0)
      threadpoolctl.threadpool_limits(1, 'blas')
      self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, 'decode')

    def chunk(start):
      return [i for slot in range(start, min(start + _CHUNK, count)) for i in one(slot)]

    return [i for part in self._pool.map(chunk, range(0, count, _CHUNK)) for i in part]


class TrainBatch:
  """(positions, indices) to a batch; an image that cannot be decoded is replaced by the next one.

  Args:
    source: see `input_pipeline.sources`.
    transform: an `augment.TrainTransform`.
    threads: see `Decoder`.
  """

  def __init__(self, source, transform, threads):
    self._source, self._transform = source, transform
    self._wire = transform.wire
    self._decoder = Decoder(threads)

  def __call__(self, places):
    positions, indices = places
    images = np.empty((len(indices), *self._wire.shape), self._wire.dtype)
    labels = np.empty(len(indices), np.int32)

    def one(slot):
      skipped = []
      for step in range(min(_SUBSTITUTES, len(self._source))):
        index = (int(indices[slot]) + step) % len(self._source)
        try:
          data, labels[slot] = self._source.read(index)
          self._transform(data, int(positions[slot]), images[slot])
          return skipped
        except (ImageError, OSError):
          skipped.append(index)
      names = ', '.join(self._source.name(i) for i in skipped[:5])
      raise CorruptDataError(f'{len(skipped)} images in a row cannot be decoded: {names}, ...; are '
                             'these images?')

    skipped = self._decoder.fill(len(indices), one)
    return {'image': images, 'label': labels, SKIPPED: np.array(sorted(set(skipped)), np.int64)}


class EvaluationBatch:
  """Dataset places to a padded batch; places beyond the end and corrupt images have mask 0."""

  def __init__(self, source, transform, threads):
    self._source, self._transform = source, transform
    self._wire = transform.wire
    self._decoder = Decoder(threads)

  def __call__(self, indices):
    images = np.zeros((len(indices), *self._wire.shape), self._wire.dtype)
    labels = np.zeros(len(indices), np.int32)
    mask = np.zeros(len(indices), np.float32)

    def one(slot):
      index = int(indices[slot])
      if index >= len(self._source):
        return []
      try:
        data, label = self._source.read(index)
        self._transform(data, images[slot])
      except (ImageError, OSError):
        images[slot] = 0
        return [index]
      labels[slot], mask[slot] = label, 1
      return []

    skipped = self._decoder.fill(len(indices), one)
    return {'image': images, 'label': labels, 'mask': mask, SKIPPED: np.array(skipped, np.int64)}


class Gather:
  """Batches of an in-memory source, for training or evaluation."""

  def __init__(self, source, evaluation):
    self._source, self._evaluation = source, evaluation

  def __call__(self, places):
    indices = places if self._evaluation else places[1]
    mask = indices < len(self._source)
    kept = np.where(mask, indices, 0)
    batch = {'image': self._source.images[kept], 'label': self._source.labels[kept],
             SKIPPED: np.zeros(0, np.int64)}
    if self._evaluation:
      batch['image'][~mask] = 0
      batch['label'][~mask] = 0
      batch['mask'] = mask.astype(np.float32)
    return batch


def training_batches(count, *, batch_size, seed, process_index, process_count, load):
  """An infinite, random-access data set of training batches.

  Every epoch is a new permutation of all examples; the epochs follow each other without a gap.
  Example p of that endless order belongs to process `p % process_count`, so a global batch holds
  the same examples on any number of processes.

  Args:
    count: examples.
    batch_size: global.
    seed: of the order.
    process_index, process_count: of the host.
    load: a `TrainBatch` or `Gather`.
  Returns:
    `grain.MapDataset`.
  """
  order = grain.MapDataset.range(count).seed(int(seed) % 2**32).shuffle().repeat(_ENDLESS // count)
  places = order.map_with_index(lambda position, index: (position, index))
  return places[process_index::process_count].batch(batch_size // process_count).map(load)


def evaluation_batches(count, *, batch_size, process_index, process_count, load):
  """A finite data set that covers every example once, the same number of batches on each process.

  Returns:
    `grain.MapDataset` of `ceil(count / batch_size)` batches.
  """
  padded = -(-count // batch_size) * batch_size
  places = grain.MapDataset.range(padded)[process_index::process_count]
  return places.batch(batch_size // process_count).map(load)


def iterate(batches, workers, prefetch):
  """A Grain iterator over batches, in their order, loaded by a thread or by worker processes."""
  if not workers:
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prefetch)
    return iter(batches.to_iter_dataset(options))
  if not flags.FLAGS.is_parsed():
    # Grain reads its flags to start workers; outside absl's app.run nobody parses them.
    flags.FLAGS.mark_as_parsed()
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  per_worker = max(1, -(-prefetch // workers))
  return iter(batches.to_iter_dataset(options).mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=per_worker),
      worker_init_fn=_leave_interrupts))


def _leave_interrupts(index, count):
  """Ctrl-C reaches every process of a terminal; the main one decides when the workers end."""
  del index, count
  signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(running):
  while running:
    running.pop().close()


class TrainIterator:
  """The endless training batches, with a state that any worker or process count resumes exactly.

  Args:
    batches: `training_batches`.
    order: JSON-able description of what determines the order; a state of another order is refused.
    on_skipped: called with the indices of images that could not be decoded.
    workers, prefetch: see `iterate`.
  """

  def __init__(self, batches, order, on_skipped, workers, prefetch):
    self._batches, self._order, self._on_skipped = batches, dict(order), on_skipped
    self._workers, self._prefetch = workers, prefetch
    self._next = 0
    self._running = []
    # Threads and worker processes must end before the interpreter takes Grain apart.
    weakref.finalize(self, _stop, self._running)

  def __iter__(self):
    return self

  def __next__(self):
    if not self._running:
      batches = self._batches[self._next:]
      self._running.append(iterate(batches, self._workers, self._prefetch))
    batch = self._load()
    self._next += 1
    self._on_skipped(batch.pop(SKIPPED))
    return batch

  def _load(self):
    try:
      return next(self._running[0])
    except CorruptDataError:
      raise
    except RuntimeError as error:
      if not self._workers:
        raise
      self.close()
      reason = (str(error).strip().splitlines() or [''])[0][:200]
      raise OSError(
          f'a process of data.workers={self._workers} ended ({reason}). Where the system stopped '
          'it for its memory, use fewer workers, a smaller data.prefetch, or threads alone: '
          'data.workers=0') from error

  def get_state(self):
    """JSON-able: the number of batches handed out, and what the order depends on."""
    return {'next_batch': self._next, **self._order}

  def set_state(self, state):
    """Continues where `get_state` was taken; batches loaded ahead are dropped.

    Raises:
      ValueError: the state belongs to another order of the data.
    """
    differing = [f'{key}: {state.get(key)} then, {value} now'
                 for key, value in self._order.items() if state.get(key) != value]
    if differing:
      raise ValueError('the saved position belongs to another order of the data ('
                       f'{"; ".join(differing)}); resume with the same data, seed and batch size')
    self.close()
    self._next = int(state['next_batch'])

  def close(self):
    """Stops loading ahead. The iterator still works, and then starts loading again."""
    _stop(self._running)
