"""Mean and standard deviation of every coefficient, or of every channel, over the training set.

One pass over `config.data`'s training images as evaluation makes them (short side resized, centre
crop), for all 192 block-DCT coefficients whatever subset the config selects, or for the three
channels of representation 'rgb' and 'ycbcr'. Sums are merged in float64 by the rule of Chan, Golub
and LeVeque (1979). Interrupted, it continues where it stopped when started again. Over several
hosts, whichever finishes last writes the result.
"""
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from fcajax.errors import UserError
from fcajax.input_pipeline import classification, reading
from fcajax.input_pipeline.augment import host as augment
from fcajax.input_pipeline.order import Request
from fcajax.input_pipeline.settings import DataSettings
from fcajax.ops import color
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection import coefficients
from fcajax.typing import Float, Num

_BATCH = 32
_SAVE_SECONDS = 30


class RunningMoments:
  """Mean and sum of squared deviations of every column, merged group by group."""

  def __init__(self, width: int):
    self.count = 0
    self.mean = np.zeros(width)
    self.squares = np.zeros(width)

  def merge(self, count: int, mean: Num[np.ndarray, ' k'], squares: Num[np.ndarray, ' k']) -> None:
    """Adds a group of `count` values a column, with its mean and sum of squared deviations.

        M2 = M2_a + M2_b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b)
    """
    if not count:
      return
    total = self.count + count
    delta = np.asarray(mean, np.float64) - self.mean
    self.squares += squares + delta**2 * (self.count * count / total)
    self.mean += delta * (count / total)
    self.count = total

  @property
  def std(self) -> Float[np.ndarray, ' k']:
    return np.sqrt(self.squares / max(1, self.count))

  def to_dict(self) -> dict[str, Any]:
    return {'count': self.count, 'mean': self.mean.tolist(), 'squares': self.squares.tolist()}

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'RunningMoments':
    moments = cls(len(values['mean']))
    moments.merge(values['count'], np.array(values['mean']), np.array(values['squares']))
    return moments


@functools.partial(jax.jit, static_argnames=('representation', 'chroma'))
def _image_moments(images, representation, chroma):
  """Mean and squared deviations within each image, `[N, k]` float32 each."""
  if representation == 'dct':
    values = coefficients.rgb_to_coefficients(images, '192', chroma)
  elif representation == 'ycbcr':
    values = color.rgb_to_ycbcr(images) / 255
  else:
    values = images.astype(jnp.float32) / 255
  mean = values.mean((1, 2))
  return mean, ((values - mean[:, None, None]) ** 2).sum((1, 2))


def _identity(settings, source, process):
  """What a saved part must agree on to be continued or merged."""
  size = Preprocessing(settings.image_size, settings.resize_size)
  values = {'representation': settings.representation, 'image_size': list(size.shape),
            'short_side': size.short_side, 'images': len(source), 'process_count': process[1]}
  if settings.representation == 'dct':
    values['chroma'] = settings.chroma
  return values


def _part_path(output, index, count):
  return output.with_name(f'{output.name}.part-{index}-of-{count}')


def _write(path, content):
  unfinished = path.with_name(path.name + '.incomplete')
  unfinished.write_text(json.dumps(content, indent=1) + '\n')
  os.replace(unfinished, path)


def _load_part(path, identity):
  if not path.is_file():
    return None
  part = json.loads(path.read_text())
  if part['identity'] != identity:
    raise UserError(f"'{path}' was begun for {part['identity']}, now the data are {identity}; "
                     'remove it to start again')
  return part


def _progress(done, total, started, first):
  rate = (done - first) / max(1e-9, time.monotonic() - started)
  left = (total - done) / max(rate, 1e-9)
  filled = int(30 * done / total)
  text = (f'[{"#" * filled}{"." * (30 - filled)}] {done}/{total} images, {rate:.0f} images/s, '
          f'{left:.0f} s left')
  if sys.stderr.isatty():
    print('\r' + text, end='\n' if done == total else '', file=sys.stderr, flush=True)
  else:
    print(text, file=sys.stderr, flush=True)


def _merge_parts(output, identity, count, max_corrupt_fraction):
  """Writes the result if every process has finished; returns it or None."""
  parts = [_load_part(_part_path(output, i, count), identity) for i in range(count)]
  if not all(part and part['finished'] for part in parts):
    return None
  moments = RunningMoments.from_dict(parts[0]['moments'])
  for part in parts[1:]:
    other = part['moments']
    moments.merge(other['count'], np.array(other['mean']), np.array(other['squares']))
  skipped = sorted(name for part in parts for name in part['skipped'])
  total = identity['images']
  if len(skipped) > max_corrupt_fraction * total:
    raise reading.CorruptDataError(
        f'{len(skipped)} of {total} images cannot be decoded: {", ".join(skipped[:5])}; repair or '
        'remove them, or raise data.max_corrupt_fraction')
  constant = np.flatnonzero(moments.std == 0)
  if len(constant):
    logging.warning('columns %s never vary over the data; their standard deviation is 0',
                    constant.tolist()[:10])
  result = {key: identity[key] for key in ('representation', 'image_size', 'short_side')}
  if identity['representation'] == 'dct':
    result.update(coefficients='192', chroma=identity['chroma'])
  result.update(images=total - len(skipped), skipped=skipped, mean=moments.mean.tolist(),
                std=moments.std.tolist())
  _write(output, result)
  for i in range(count):
    _part_path(output, i, count).unlink(missing_ok=True)
  return result


def compute(
    data_config: Mapping[str, Any] | ConfigDict, output: str | os.PathLike, *, seed: int = 0,
    process: tuple[int, int] = (0, 1), batch_size: int = _BATCH, max_batches: int | None = None,
    progress: Callable[..., None] = _progress) -> dict[str, Any] | None:
  """Computes the statistics and writes them.

  Args:
    data_config: `config.data`.
    output: the JSON file.
    seed: of a held-out split, as in training.
    process: (index, count) of this process.
    batch_size: images at a time.
    max_batches: stop after so many, as an interruption would; None for all.
    progress: called with (images done, images of this process, start time, first image).
  Returns:
    The result, or None while other processes (or batches) are missing.
  Raises:
    UserError: settings that are wrong, or a part of another computation in the way.
    CorruptDataError: too many images cannot be decoded.
  """
  settings = DataSettings.from_config(data_config)
  source = classification.load_splits(settings, seed).train
  output = pathlib.Path(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  index, count = process
  if not 0 <= index < count:
    raise UserError(f'process_index={index} must lie in 0..{count - 1}')
  preprocessing = Preprocessing(settings.image_size, settings.resize_size,
                                representation=settings.representation, chroma=settings.chroma)
  identity = _identity(settings, source, process)
  path = _part_path(output, index, count)
  part = _load_part(path, identity)
  width = 192 if settings.representation == 'dct' else 3
  moments = RunningMoments.from_dict(part['moments']) if part else RunningMoments(width)
  first = part['next'] if part else 0
  skipped = part['skipped'] if part else []
  if part:
    logging.info('continuing after %d images', first)
  mine = np.arange(index, len(source), count)
  transform = augment.EvaluationTransform(preprocessing, host_formats.Rgb(preprocessing.shape))
  read = reading.EvaluationReader(
      classification.ImageExamples(source, transform), settings.threads)

  def save(position):
    _write(path, {'identity': identity, 'next': position, 'finished': position >= len(mine),
                  'skipped': skipped, 'moments': moments.to_dict()})

  started = saved = time.monotonic()
  values = preprocessing.shape[0] * preprocessing.shape[1]
  values = values // 64 if settings.representation == 'dct' else values
  starts = range(first, len(mine), batch_size)
  for position in starts[:max_batches]:
    # Padding keeps one compiled shape; it is masked below.
    indices = np.full(batch_size, len(source))
    chosen = mine[position:position + batch_size]
    indices[:len(chosen)] = chosen
    batch = read(Request(indices, indices, group=0))
    skipped += [source.name(i) for i, _ in batch[reading.SKIPPED]]
    means, squares = (np.asarray(x) for x in _image_moments(
        batch['image'], settings.representation, settings.chroma))
    for image in np.flatnonzero(batch['mask']):
      moments.merge(values, means[image], squares[image])
    done = position + len(chosen)
    if time.monotonic() - saved > _SAVE_SECONDS or done == len(mine):
      save(done)
      saved = time.monotonic()
      progress(done, len(mine), started, first)
  if max_batches is not None and len(starts) > max_batches:
    save(starts[max_batches])
    return None
  save(len(mine))
  return _merge_parts(output, identity, count, settings.max_corrupt_fraction)
