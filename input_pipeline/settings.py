"""`config.data`: every key that the input pipeline reads, with its default."""
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

from fcajax.errors import UserError, did_you_mean
from fcajax.preprocessing.constants import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  NORMALIZATIONS,
  REPRESENTATIONS,
)


class OneOf:
  """Marks the allowed values of a field: `Annotated[str, OneOf('rgb', '420')]`."""

  def __init__(self, *options: Any):
    self.options = options


@dataclasses.dataclass(frozen=True)
class LoaderSettings:
  """The keys of `config.data` that every data source has; a source's own settings extend it."""

  # 'folder' | 'tfds' | 'digits' | 'coco' | 'voc' | 'keypoints', or a data source of your own, as
  # 'module:Name' or 'file.py:Name'.
  source: str = 'folder'
  # Processes that load batches; 0 loads in threads of the training process.
  workers: int = 0
  # Threads that read examples in each process; 0 is one for each core, at most 16.
  threads: int = 0
  # Batches that are ready ahead.
  prefetch: int = 2
  # The run stops when a larger share of a split cannot be read.
  max_corrupt_fraction: float = 0.01

  def __post_init__(self):
    self._check_options()
    for name in ('workers', 'threads'):
      if getattr(self, name) < 0:
        raise UserError(f'data.{name}={getattr(self, name)} must not be negative')
    if self.prefetch < 1:
      raise UserError(f'data.prefetch={self.prefetch} must be at least 1 batch')
    if not 0 <= self.max_corrupt_fraction <= 1:
      raise UserError(f'data.max_corrupt_fraction={self.max_corrupt_fraction} must lie in 0..1')

  def _check_options(self):
    """Refuses a value that is not one of the options of its field."""
    for name, hint in get_type_hints(type(self), include_extras=True).items():
      for mark in getattr(hint, '__metadata__', ()):
        if isinstance(mark, OneOf) and getattr(self, name) not in mark.options:
          raise UserError(
              f'data.{name}={getattr(self, name)!r} is unknown; use one of {mark.options}')

  @classmethod
  def from_config(cls, config: Mapping[str, Any] | Any) -> 'LoaderSettings':
    """Reads a ConfigDict or a dict; missing keys take their default.

    Raises:
      UserError: an unknown key, with near matches, or a value out of range.
    """
    values = dict(config.to_dict() if hasattr(config, 'to_dict') else config)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
      if name not in known:
        raise UserError(f'unknown key data.{name}: {did_you_mean(name, known)}')
    for field in dataclasses.fields(cls):
      if field.type is not Any and field.name in values:
        values[field.name] = _converted(field, values[field.name])
    return cls(**values)


def _converted(field, value):
  """Returns the value in the type of the field's default; a list counts as a tuple, 1 as 1.0."""
  kind = type(field.default)
  if kind is tuple and isinstance(value, Sequence) and not isinstance(value, str):
    return tuple(value)
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise UserError(f'data.{field.name}={value!r} must be a value such as {field.default!r}')
  return value


@dataclasses.dataclass(frozen=True)
class DataSettings(LoaderSettings):
  """The keys of `config.data` for image classification."""

  # For 'tfds': the name of the data set, NAME, NAME/CONFIG or NAME:VERSION.
  name: str = ''
  # For 'tfds': the directory that holds NAME, or the prepared version directory itself; '' means
  # $TFDS_DATA_DIR or ~/tensorflow_datasets.
  data_dir: str = ''
  # For 'folder': the folder of images.
  root: str = ''
  # TFDS split expressions, or sub-folders; 'validation' also finds val/, valid/, test/, ...
  train_split: str = 'train'
  eval_split: str = 'validation'
  # Share held out of each class, by config.seed, of a folder without validation folder and of the
  # digits.
  validation_fraction: float = 0.1
  # Side of the network's input in pixels, or (height, width).
  image_size: Any = 224
  # In evaluation, the short side before the centre crop; 0 is image_size * 256 / 224.
  resize_size: int = 0
  # Range of the random resized crop's share of the image's area.
  crop_area: tuple[float, ...] = (0.08, 1.0)
  # Range of its width / height.
  crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
  # Above 0: an in-memory set is cropped at random out of the image padded with this many zeros on
  # each side, instead of a random resized crop.
  crop_padding: int = 0
  # False makes training images as evaluation makes them.
  augment: bool = True
  # Mirror left to right with probability 1/2 (never digits).
  flip: bool = True
  # Of RGB in 0..1.
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD
  # Decode all images once and keep them in memory: True, False or 'auto'.
  in_memory: Any = 'auto'
  # What the network reads: 'rgb' | 'ycbcr' | 'dct' (block-DCT coefficients).
  representation: Annotated[str, OneOf(*REPRESENTATIONS)] = 'rgb'
  # For 'dct': the coefficients to read, see fcajax/selection/coefficients.py.
  coefficients: Any = '24S'
  # For 'dct': 'full' (a chroma block for each luma block, as published) | 'half' (true 4:2:0).
  chroma: Annotated[str, OneOf('full', 'half')] = 'half'
  # For 'dct': 'statistics' (of the file named next) | 'published' | 'none'.
  normalization: Annotated[str, OneOf(*NORMALIZATIONS)] = 'statistics'
  # JSON file written by `fcajax statistics`.
  statistics: str = ''
  # For 'dct': where the coefficients are computed, 'device' | 'host'.
  dct_on: Annotated[str, OneOf('device', 'host')] = 'device'
  # For dct_on='host': bits of a coefficient, 16 | 8.
  dct_bits: Annotated[int, OneOf(16, 8)] = 16
  # What travels from the host to the device: 'rgb' | '420' (planar YCbCr, half the bytes, half the
  # chroma resolution) | 'auto', which is 'rgb' except for 'dct' with chroma='half', where '420'
  # loses nothing.
  host_format: Annotated[str, OneOf('auto', 'rgb', '420')] = 'auto'

  def __post_init__(self):
    super().__post_init__()
    if self.in_memory not in (True, False, 'auto'):
      raise UserError(
          f"data.in_memory={self.in_memory!r} is unknown; use one of (True, False, 'auto')")
    for name, low, high in (('crop_area', 0, 1), ('crop_ratio', 0, float('inf'))):
      value = tuple(float(v) for v in getattr(self, name))
      if len(value) != 2 or not low < value[0] <= value[1] <= high:
        raise UserError(f'data.{name}={value} must be two ascending numbers above {low} and at '
                        f'most {high}')
      object.__setattr__(self, name, value)
    if self.crop_padding < 0:
      raise UserError(f'data.crop_padding={self.crop_padding} must not be negative')
    object.__setattr__(self, 'image_size', checked_size(self.image_size))
    if isinstance(self.coefficients, Mapping):
      lists = {key: tuple(value) for key, value in self.coefficients.items()}
      object.__setattr__(self, 'coefficients', lists)


def checked_size(value: Any) -> int | tuple[int, int]:
  """Returns a side, or (height, width), of whole pixels.

  Raises:
    UserError: anything else.
  """
  sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
  if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
    raise UserError(f'data.image_size={value!r} must be a positive whole number of pixels, or '
                    '(height, width)')
  return value if value == sides[0] else sides
