"""Augmentation of in-memory sets on the device: pure functions of a key and a uint8 batch."""
import jax
import jax.numpy as jnp
import numpy as np


def random_flip(key, images):
  """Mirrors each image left to right with probability 1/2, `[N, H, W, 3]`."""
  mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_shift_crop(key, images, padding, shape):
  """A random `shape` out of each image padded with `padding` zeros on every side.

  Args:
    key: PRNG key.
    images: `[N, H, W, 3]`.
    padding: pixels on each side.
    shape: (height, width) of the crop.
  Returns:
    `[N, *shape, 3]` of the same dtype.
  """
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


def random_resized_crop(key, images, area, ratio, shape):
  """A crop of random area and ratio of each image, resampled to `shape`.

  The resampling is two matrix products with an antialiased triangle filter, so shapes are static.
  Unlike the host's, a crop that does not fit is clipped instead of drawn again.

  Args:
    key: PRNG key.
    images: uint8 `[N, H, W, 3]`.
    area: range of the share of the image's area.
    ratio: range of width / height.
    shape: (height, width) of the result.
  Returns:
    uint8 `[N, *shape, 3]`.
  """
  boxes = _random_boxes(key, len(images), images.shape[1:3], area, ratio)

  def resample(image, box):
    scale = jnp.asarray(shape, jnp.float32) / box[2:]
    return jax.image.scale_and_translate(
        image.astype(jnp.float32), (*shape, 3), (0, 1), scale, -box[:2] * scale, 'linear',
        antialias=True)

  return jnp.clip(jnp.rint(jax.vmap(resample)(images, boxes)), 0, 255).astype(jnp.uint8)


def make(settings, preprocessing, mirror):
  """The augmentation of an in-memory set, or None where the settings ask for none.

  Args:
    settings: a `DataSettings`.
    preprocessing: a `Preprocessing`; its image_size is the result's.
    mirror: False forbids flips.
  Returns:
    `augment(key, images)`: uint8 `[N, H, W, 3]` to uint8 `[N, h, w, 3]`; pure.
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
