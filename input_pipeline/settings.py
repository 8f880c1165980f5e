"""`config.data`: every key that the input pipeline reads, with its default."""
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from fcajax.preprocess import IMAGENET_MEAN, IMAGENET_STD, NORMALIZATIONS, REPRESENTATIONS

SOURCES = ('folder', 'tfds', 'digits')


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Keys of `config.data`.

  Attributes:
    source: 'folder', 'tfds' or 'digits' (scikit-learn's, 32 x 32).
    name: TFDS name, 'NAME', 'NAME/CONFIG' or 'NAME:VERSION'.
    data_dir: TFDS directory that holds NAME, or the prepared version directory itself; '' means
      $TFDS_DATA_DIR or ~/tensorflow_datasets.
    root: image folder.
    train_split, eval_split: TFDS split expression, or sub-folder ('validation' also finds val/ and
      valid/).
    validation_fraction: share held out, by class and seed, of a folder with one level and of
      digits.
    image_size: side in pixels, or (height, width).
    resize_size: short side before the centre crop in evaluation; 0 for image_size * 256 / 224.
    crop_area: range of the random resized crop's share of the image's area.
    crop_ratio: range of its width / height.
    crop_padding: above 0, an in-memory set is cropped at random out of the image padded with this
      many zeros on each side, instead of the random resized crop.
    augment: False makes training images as evaluation makes them.
    flip: mirror left to right with probability 1/2 (never digits).
    mean, std: RGB, in 0..1.
    workers: loader processes; 0 loads in threads of this process.
    threads: decode threads in each process; 0 is one a core, at most 16.
    prefetch: batches ready ahead.
    in_memory: True, False or 'auto'.
    max_corrupt_fraction: of a split's images, above which the run stops.
    representation: 'rgb', 'ycbcr' or 'dct'.
    coefficients, chroma: for 'dct', see `fcajax.ops.coefficients`.
    normalization: for 'dct', 'statistics' (the file named next), 'published' or 'none'.
    statistics: JSON written by `python -m input_pipeline.statistics`.
    dct_on: for 'dct', 'device' or 'host'.
    dct_bits: for dct_on='host', 16 or 8 bits a coefficient.
    wire: what travels to the device: 'rgb', '420' (planar YCbCr, half the bytes, half the chroma
      resolution) or 'auto', which is 'rgb' save for 'dct' with chroma='half', where '420' loses
      nothing.
  """
  source: str = 'folder'
  name: str = ''
  data_dir: str = ''
  root: str = ''
  train_split: str = 'train'
  eval_split: str = 'validation'
  validation_fraction: float = 0.1
  image_size: Any = 224
  resize_size: int = 0
  crop_area: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  crop_padding: int = 0
  augment: bool = True
  flip: bool = True
  mean: tuple[float, float, float] = IMAGENET_MEAN
  std: tuple[float, float, float] = IMAGENET_STD
  workers: int = 0
  threads: int = 0
  prefetch: int = 2
  in_memory: Any = 'auto'
  max_corrupt_fraction: float = 0.01
  representation: str = 'rgb'
  coefficients: Any = '24S'
  chroma: str = 'half'
  normalization: str = 'statistics'
  statistics: str = ''
  dct_on: str = 'device'
  dct_bits: int = 16
  wire: str = 'auto'

  def __post_init__(self):
    _one_of('source', self.source, SOURCES)
    _one_of('representation', self.representation, REPRESENTATIONS)
    _one_of('normalization', self.normalization, NORMALIZATIONS)
    _one_of('dct_on', self.dct_on, ('device', 'host'))
    _one_of('dct_bits', self.dct_bits, (8, 16))
    _one_of('wire', self.wire, ('auto', 'rgb', '420'))
    _one_of('in_memory', self.in_memory, (True, False, 'auto'))
    for name, low, high in (('crop_area', 0, 1), ('crop_ratio', 0, float('inf'))):
      value = tuple(float(v) for v in getattr(self, name))
      if len(value) != 2 or not low < value[0] <= value[1] <= high:
        raise ValueError(f'data.{name}={value} must be two ascending numbers above {low} and at '
                         f'most {high}')
      object.__setattr__(self, name, value)
    for name in ('workers', 'threads', 'crop_padding'):
      if getattr(self, name) < 0:
        raise ValueError(f'data.{name}={getattr(self, name)} must not be negative')
    if self.prefetch < 1:
      raise ValueError(f'data.prefetch={self.prefetch} must be at least 1 batch')
    if not 0 <= self.max_corrupt_fraction <= 1:
      raise ValueError(f'data.max_corrupt_fraction={self.max_corrupt_fraction} must lie in 0..1')
    object.__setattr__(self, 'image_size', _size(self.image_size))

  @classmethod
  def from_config(cls, config):
    """Reads a ConfigDict or a dict; missing keys take their default.

    Raises:
      ValueError: an unknown key (near matches are named), or a value out of range.
    """
    values = dict(config.to_dict() if hasattr(config, 'to_dict') else config)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
      if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f'did you mean {", ".join(near)}?' if near else f'known are {", ".join(known)}'
        raise ValueError(f'unknown key data.{name}; {hint}')
    coefficients = values.get('coefficients')
    if isinstance(coefficients, Mapping):
      values['coefficients'] = {k: tuple(v) for k, v in coefficients.items()}
    return cls(**values)


def _size(value):
  """A side, or (height, width), of whole pixels."""
  sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
  if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
    raise ValueError(f'data.image_size={value!r} must be a positive whole number of pixels, or '
                     '(height, width)')
  return value if value == sides[0] else sides


def _one_of(name, value, allowed):
  if value not in allowed:
    raise ValueError(f'data.{name}={value!r} is unknown; use one of {allowed}')
