"""`config.data` of object detection: every key with its default."""
import dataclasses
from typing import Annotated, Any

from fcajax.errors import UserError
from fcajax.input_pipeline.settings import DataSettings, LoaderSettings, OneOf
from fcajax.preprocessing.constants import NORMALIZATIONS, REPRESENTATIONS


@dataclasses.dataclass(frozen=True)
class DetectionSettings(LoaderSettings):
  """The keys of `config.data` for images with boxes."""

  # 'coco' (a JSON file and a folder of images for each split) | 'voc' (a folder as VOC2012).
  source: str = 'coco'
  # The folder that the paths below are relative to; for 'voc', it holds Annotations and JPEGImages.
  root: str = ''
  # For 'coco': annotation files and folders of images. Without eval_annotations, a share of the
  # training images is held out; without eval_images, they lie in train_images.
  train_annotations: str = 'annotations/instances_train2017.json'
  train_images: str = 'train2017'
  eval_annotations: str = 'annotations/instances_val2017.json'
  eval_images: str = 'val2017'
  # For 'voc': files of ImageSets/Main without '.txt'. Without eval_split, a share is held out.
  train_split: str = 'train'
  eval_split: str = 'val'
  # The share of images that is held out, by config.seed.
  validation_fraction: float = DataSettings.validation_fraction
  # The image is resized, its aspect kept, until one of these sides is reached.
  short_side: int = 800
  long_side: int = 1333
  # The sides of a padded image are multiples of it: the largest stride of the backbone.
  divisor: int = 32
  # Long / short side up to which an image is padded to a narrower shape than the widest one. Every
  # entry adds a landscape and a portrait shape, so two compilations.
  bucket_aspects: tuple[float, ...] = (1.34,)
  # The probability of a flip left to right in training.
  flip: float = 0.5
  # Objects of an image; of more, the largest are kept.
  max_boxes: int = 100
  # Training images with a shorter side, as stored, are left out.
  min_side: int = 32
  # 'none' | 'box' (masks cut to each box) | 'bitmap' (of whole images, a bit a pixel: exact, and 43
  # times the bytes).
  masks: Annotated[str, OneOf('none', 'box', 'bitmap')] = 'none'
  # Cells a side of a mask that is cut to its box.
  mask_size: int = 56
  # Pixels of the image a pixel of the boxes: 2 for networks that read the block DCT of twice the
  # resolution.
  enlarge: int = 1
  # As for images and labels.
  mean: tuple[float, ...] = DataSettings.mean
  std: tuple[float, ...] = DataSettings.std
  representation: Annotated[str, OneOf(*REPRESENTATIONS)] = DataSettings.representation
  coefficients: Any = DataSettings.coefficients
  chroma: Annotated[str, OneOf('full', 'half')] = DataSettings.chroma
  normalization: Annotated[str, OneOf(*NORMALIZATIONS)] = DataSettings.normalization
  statistics: str = DataSettings.statistics
  dct_on: Annotated[str, OneOf('device', 'host')] = DataSettings.dct_on
  dct_bits: Annotated[int, OneOf(16, 8)] = DataSettings.dct_bits
  host_format: Annotated[str, OneOf('auto', 'rgb', '420')] = DataSettings.host_format

  def __post_init__(self):
    super().__post_init__()
    for name in ('short_side', 'divisor', 'max_boxes', 'mask_size', 'enlarge'):
      value = getattr(self, name)
      if type(value) is not int or value < 1:
        raise UserError(f'data.{name}={value!r} must be a whole number above 0')
    if self.long_side < self.short_side:
      raise UserError(f'data.long_side={self.long_side} must be at least '
                      f'data.short_side={self.short_side}')
    if not 0 <= self.flip <= 1:
      raise UserError(f'data.flip={self.flip} is a probability and must lie in 0..1')
    if not 0 < self.validation_fraction < 1:
      raise UserError(f'data.validation_fraction={self.validation_fraction} must lie between 0 '
                      'and 1')
    aspects = tuple(map(float, self.bucket_aspects))
    if any(aspect < 1 for aspect in aspects):
      raise UserError(f'data.bucket_aspects={aspects} are long / short sides, at least 1')
    object.__setattr__(self, 'bucket_aspects', aspects)

  @property
  def image_size(self) -> tuple[int, int]:
    """The widest (height, width) that the network reads, in pixels of the image."""
    unit = self.divisor
    return tuple(-(-side // unit) * unit * self.enlarge
                 for side in (self.short_side, self.long_side))

  @property
  def resize_size(self) -> int:
    """The short side after resizing, in pixels of the image."""
    return self.short_side * self.enlarge
