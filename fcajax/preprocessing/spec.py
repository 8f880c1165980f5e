"""From an encoded image to a model's input: what a deployed model needs, and training reuses.

The host decodes, resizes and crops to uint8; `device_transform` does the arithmetic (normalisation,
colour, block DCT) on the device, inside the compiled step.
"""
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.preprocessing import device
from fcajax.preprocessing.constants import IMAGENET_MEAN, IMAGENET_STD, REPRESENTATIONS
from fcajax.preprocessing.decode import ImageError, decode_image
from fcajax.preprocessing.resize import resize_and_crop, resized_shape
from fcajax.selection.coefficients import coefficient_subset
from fcajax.typing import Num, UInt8

__all__ = ['ImageError', 'Preprocessing', 'decode_image', 'device_transform',
           'evaluation_transform', 'resize_and_crop']

# Evaluation resizes the short side to 256 for a crop of 224, and in proportion for other sizes.
RESIZE_RATIO = 256 / 224

# What one number for each channel or coefficient may be given as; stored as a tuple of floats.
Numbers = Sequence[float] | Num[np.ndarray, ' k']


def _tuple(value):
  return tuple(float(v) for v in value) if value is not None else None


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How an image becomes a model's input; stored with every checkpoint and weights file.

  Attributes:
    image_size: side of the square crop in pixels, or (height, width).
    resize_size: the short side is resized to this before the centre crop; 0 means
      `round(image_size * 256 / 224)` (of the longer side of a rectangular image_size).
    mean, std: of RGB in 0..1, for 'rgb' and 'ycbcr' (there of Y, Cb, Cr in 0..1).
    representation: 'rgb', 'ycbcr' (full-range, three full-size planes) or 'dct' (selected block-DCT
      coefficients, `[H/8, W/8, k]`).
    coefficients: for 'dct', as `fcajax.selection.coefficients.coefficient_subset` takes it.
    chroma: for 'dct', 'full' (as published) or 'half' (true 4:2:0 blocks).
    coefficient_mean, coefficient_std: for 'dct', one number a selected coefficient, or None for
      coefficients as they are.
    coefficient_scale: for coefficients computed on the host, the step of each integer, else None.
  """
  image_size: int | Sequence[int] = 224
  resize_size: int = 0
  mean: Numbers = IMAGENET_MEAN
  std: Numbers = IMAGENET_STD
  representation: str = 'rgb'
  coefficients: str | Mapping[str, Sequence[int]] = '24S'
  chroma: str = 'full'
  coefficient_mean: Numbers | None = None
  coefficient_std: Numbers | None = None
  coefficient_scale: Numbers | None = None

  def __post_init__(self):
    size = self.image_size
    pair = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
      raise UserError(f'image_size={size!r} must be a positive number of pixels or (height, '
                       'width)')
    square = isinstance(size, (int, np.integer))
    object.__setattr__(self, 'image_size', int(size) if square else tuple(map(int, pair)))
    for name in ('mean', 'std', 'coefficient_mean', 'coefficient_std', 'coefficient_scale'):
      object.__setattr__(self, name, _tuple(getattr(self, name)))
    if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
      raise UserError(f'mean={self.mean} and std={self.std} need three values each, standard '
                       'deviations above 0')
    if self.representation not in REPRESENTATIONS:
      raise UserError(f'representation={self.representation!r} is unknown; use one of '
                       f'{REPRESENTATIONS}')
    if self.resize_size < 0:
      raise UserError(f'resize_size={self.resize_size} must be 0 (automatic) or a length in '
                       'pixels')
    if self.chroma not in ('full', 'half'):
      raise UserError(f"chroma={self.chroma!r} is unknown; use 'full' or 'half'")
    if self.representation == 'ycbcr' and any(side % 2 for side in self.shape):
      raise UserError(f'image_size={size} must be even for representation="ycbcr"')
    if self.representation == 'dct':
      unit = 16 if self.chroma == 'half' else 8
      if any(side % unit for side in self.shape):
        raise UserError(f'image_size={size} must be a multiple of {unit} for representation="dct" '
                         f'with chroma={self.chroma!r}')
      self._check_tables()

  def _check_tables(self):
    """One number a coefficient, mean and std together, standard deviations and steps above 0."""
    if (self.coefficient_mean is None) != (self.coefficient_std is None):
      raise UserError('coefficient_mean and coefficient_std belong together; give both or none')
    for name in ('coefficient_mean', 'coefficient_std', 'coefficient_scale'):
      values = getattr(self, name)
      if values is None:
        continue
      count = len(coefficient_subset(self.coefficients))
      if len(values) != count:
        raise UserError(f'{name} has {len(values)} entries, but coefficients='
                         f'{self.coefficients!r} are {count}')
      if name != 'coefficient_mean' and min(values) <= 0:
        raise UserError(f'{name} must be above 0; its least entry is {min(values)}')

  @property
  def shape(self) -> tuple[int, int]:
    """Height and width of the crop in pixels."""
    size = self.image_size
    return (size, size) if isinstance(size, int) else size

  @property
  def short_side(self) -> int:
    """Length of the short side before the crop, in pixels."""
    return self.resize_size or round(max(self.shape) * RESIZE_RATIO)

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-able dict that `from_dict` reads."""
    values = dataclasses.asdict(self)
    if isinstance(self.coefficients, Mapping):
      values['coefficients'] = {k: [int(i) for i in v] for k, v in self.coefficients.items()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Preprocessing':
    """Reads what `to_dict` returned.

    Raises:
      UserError: a key that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
      raise UserError(f'unknown preprocessing keys {unknown}; known are {sorted(known)}')
    return cls(**values)


def evaluation_transform(image: Any, preprocessing: Preprocessing) -> UInt8[np.ndarray, 'h w 3']:
  """Resizes the short side and takes the centre crop, as torchvision's Resize and CenterCrop.

  The filter is Pillow's bilinear one, which averages when it shrinks. An image whose short side
  would be below the crop is enlarged until it covers it.

  Args:
    image: uint8 RGB `[H, W, 3]`.
    preprocessing: of the network.
  Returns:
    RGB of `preprocessing.image_size`, whatever the representation.
  Raises:
    UserError: `image` is no such array.
  """
  image = np.asarray(image)
  if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
    raise UserError(f'expected uint8 RGB [H, W, 3]; got {image.dtype} {list(image.shape)}. '
                    'decode_image gives such an array')
  resized = resized_shape(*image.shape[:2], preprocessing.short_side, preprocessing.shape)
  return resize_and_crop(image, resized, preprocessing.shape)


def device_transform(preprocessing: Preprocessing, dtype: Any = 'float32') -> Callable[..., Any]:
  """Returns a pure function from a batch of host data to the model's input.

  It accepts every host format: uint8 RGB `[N, H, W, 3]`; uint8 4:2:0 planes `[N, 3H/2, W]`; int8 or
  int16 coefficients `[N, H/8, W/8, k]`. It returns `[N, H, W, 3]`, or `[N, H/8, W/8, k]` for
  representation 'dct'. The arithmetic is float32; only the result is cast.

  Args:
    preprocessing: of the network.
    dtype: of the result.
  """
  return device.transform(preprocessing, jnp.dtype(dtype))
