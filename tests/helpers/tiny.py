"""A small network and an in-memory pipeline for the tests of training."""
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fcajax.configs import common
from fcajax.layers.norm import BatchNorm
from fcajax.preprocessing import spec as preprocess


class TinyNet(nn.Module):
  """Convolutions with batch norm; takes the arguments that every network here takes."""

  num_classes: int = 3
  width: int = 8
  axis_name: str | None = None
  dtype: object = None
  dropout: float = 0.0
  auxiliary: float = 0.0
  use_norm: bool = True
  depth: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    for i in range(self.depth):
      x = nn.Conv(
          self.width, (3, 3), strides=2, use_bias=False, dtype=self.dtype, name=f'conv{i}')(x)
      if self.use_norm:
        x = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=f'norm{i}')(x, train=train)
      x = nn.relu(x)
    x = x.mean(axis=(1, 2))
    x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
    if self.auxiliary:
      self.sow('losses', 'size', self.auxiliary * jnp.mean(x.astype(jnp.float32)))
    return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)


def make_images(count, size=8, classes=3, seed=0):
  """Noise on a class-dependent level, uint8, so that a few steps learn something."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, count).astype(np.int32)
  images = rng.integers(0, 90, (count, size, size, 3)) + (labels * 60)[:, None, None, None]
  return images.astype(np.uint8), labels


class TinyIterator:
  """Shuffled epochs without end; the state is the position."""

  def __init__(self, images, labels, batch_size, seed):
    self._images, self._labels = images, labels
    self._batch_size, self._seed, self._position = batch_size, seed, 0

  def __iter__(self):
    return self

  def __next__(self):
    per_epoch = len(self._images) // self._batch_size
    epoch, index = divmod(self._position, per_epoch)
    order = np.random.default_rng((self._seed, epoch)).permutation(len(self._images))
    chosen = order[index * self._batch_size:(index + 1) * self._batch_size]
    self._position += 1
    return {'image': self._images[chosen], 'label': self._labels[chosen]}

  def get_state(self):
    return {'position': self._position}

  def set_state(self, state):
    self._position = state['position']

  def close(self):
    pass


class TinyPipeline:
  """The interface of `input_pipeline.create` over arrays."""

  iterator_class = TinyIterator

  def __init__(self, batch_size=24, eval_batch_size=16, num_train=72, num_evaluation=40, seed=0,
               classes=3, size=8, augment=None):
    self._train = make_images(num_train, size, classes, seed=1)
    self._evaluation = make_images(num_evaluation, size, classes, seed=2)
    self._batch_size, self._eval_batch_size, self._seed = batch_size, eval_batch_size, seed
    self.num_train, self.num_evaluation, self.num_classes = num_train, num_evaluation, classes
    self.class_names = [f'class {i}' for i in range(classes)]
    self.device_augment = augment
    self.preprocessing = preprocess.Preprocessing(
        image_size=size, resize_size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

  def train_iterator(self):
    return self.iterator_class(*self._train, self._batch_size, self._seed)

  def evaluation_batches(self):
    images, labels = self._evaluation
    for start in range(0, len(images), self._eval_batch_size):
      part = slice(start, start + self._eval_batch_size)
      padding = self._eval_batch_size - len(images[part])
      yield {
          'image': np.pad(images[part], ((0, padding), (0, 0), (0, 0), (0, 0))),
          'label': np.pad(labels[part], (0, padding)),
          'mask': np.pad(np.ones(len(images[part]), np.float32), (0, padding)),
      }

  def corrupt_files(self):
    return []


def normalize(images):
  """uint8 -> float32 around 0, as the transform on the device does."""
  return images.astype(jnp.float32) / 127.5 - 1


def make_config(**changes):
  """The config of a run of six steps over two epochs of a `TinyPipeline`."""
  config = common.get_config()
  config.num_steps = 6
  config.batch_size, config.eval_batch_size = 24, 16
  config.optimizer.learning_rate, config.optimizer.learning_rate_batch = 0.05, 0
  config.log_every_steps = 1
  config.ema_decay = 0.9
  config.model.name = 'resnet18'
  config.update_from_flattened_dict(changes)
  return config.lock()
