"""Augmentation of in-memory sets on the device: pure functions of a key and a uint8 batch."""
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fcajax.input_pipeline.settings import DataSettings
from fcajax.preprocessing.spec import Preprocessing
from fcajax.typing import AnyArray, Array, Key, UInt8


def random_flip(key: Key[Array, ''], images: UInt8[AnyArray, 'n h w 3']) -> UInt8[Array, 'n h w 3']:
  """Mirrors each image left to right with probability 1/2."""
  mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_shift_crop(
    key: Key[Array, ''], images: UInt8[AnyArray, 'n h w 3'], padding: int, shape: tuple[int, int],
) -> UInt8[Array, 'n rows columns 3']:
  """Cuts a random crop of `shape` out of each image padded with zeros on every side."""
  padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  spare = np.array(padded.shape[1:3]) - np.array(shape)
  corners = jax.random.randint(key, (len(images), 2), 0, jnp.asarray(spare + 1))

  def cut(image, corner):
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (*shape, 3))

  return jax.vmap(cut)(padded, corners)


def _random_boxes(key, count, size, area, ratio):
  """(top, left, height, width) float32 `[N, 4]`: random area and ratio, clipped to the image."""
  height, width = size
  keys = jax.random.split(key, 4)
  target = height * width * jax.random.uniform(keys[0], (count,), minval=area[0], maxval=area[1])
  low, high = np.log(ratio)
  aspect = jnp.exp(jax.random.uniform(keys[1], (count,), minval=low, maxval=high))
  rows = jnp.clip(jnp.sqrt(target / aspect), 1, height)
  columns = jnp.clip(jnp.sqrt(target * aspect), 1, width)
  top = jax.random.uniform(keys[2], (count,)) * (height - rows)
  left = jax.random.uniform(keys[3], (count,)) * (width - columns)
  return jnp.stack([top, left, rows, columns], -1)


def random_resized_crop(
    key: Key[Array, ''], images: UInt8[AnyArray, 'n h w 3'], area: Sequence[float],
    ratio: Sequence[float], shape: tuple[int, int]) -> UInt8[Array, 'n rows columns 3']:
  """Cuts a crop of random area and ratio out of each image and resamples it to `shape`.

  The resampling is two matrix products with an antialiased triangle filter, so shapes are static.
  Unlike the host's, a crop that does not fit is clipped instead of drawn again.

  Args:
    key: of the random numbers.
    images: of one size.
    area: range of the share of the image's area.
    ratio: range of width / height.
    shape: (height, width) of the result.
  """
  boxes = _random_boxes(key, len(images), images.shape[1:3], area, ratio)

  def resample(image, box):
    scale = jnp.asarray(shape, jnp.float32) / box[2:]
    return jax.image.scale_and_translate(
        image.astype(jnp.float32), (*shape, 3), (0, 1), scale, -box[:2] * scale, 'linear',
        antialias=True)

  return jnp.clip(jnp.rint(jax.vmap(resample)(images, boxes)), 0, 255).astype(jnp.uint8)


def make(settings: DataSettings, preprocessing: Preprocessing, mirror: bool) -> Callable | None:
  """Returns the augmentation of an in-memory set, or None where the settings ask for none.

  It is a pure function of (key, uint8 images `[n, h, w, 3]`).

  Args:
    settings: of `config.data`.
    preprocessing: its image_size is the result's.
    mirror: False forbids flips.
  """
  if not settings.augment:
    return None
  shape = preprocessing.shape

  def augment(key, images):
    crop_key, flip_key = jax.random.split(key)
    if settings.crop_padding:
      images = random_shift_crop(crop_key, images, settings.crop_padding, shape)
    else:
      images = random_resized_crop(crop_key, images, settings.crop_area, settings.crop_ratio, shape)
    return random_flip(flip_key, images) if settings.flip and mirror else images

  return augment
