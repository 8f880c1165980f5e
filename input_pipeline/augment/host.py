"""Random resized crop and flip on the host: encoded bytes to a uint8 training image."""
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from fcajax.input_pipeline.settings import DataSettings
from fcajax.preprocessing.decode import decode_image, decode_region
from fcajax.preprocessing.host_formats import HostFormat
from fcajax.preprocessing.keep_aspect import resize_into
from fcajax.preprocessing.spec import Preprocessing, evaluation_transform
from fcajax.typing import Float, Shaped, UInt8

_ATTEMPTS = 10
# Two numbers an attempt, two for the position, one for the flip.
_DRAWS = 2 * _ATTEMPTS + 3

@runtime_checkable
class Transform(Protocol):
  """Writes an image into a slot of a batch, in the host format of the attribute."""
  host_format: HostFormat

  def __call__(self, data: bytes | UInt8[np.ndarray, 'h w 3'], out: Shaped[np.ndarray, '...'],
               generator: np.random.Generator | None) -> None:
    """Writes the image; raises ImageError where `data` is none."""


def draw(generator: np.random.Generator) -> Float[np.ndarray, ' 23']:
  """Returns the random numbers of one training image, uniform in [0, 1)."""
  return generator.random(_DRAWS)


def random_crop(
    height: int, width: int, area: Sequence[float], ratio: Sequence[float],
    uniform: Float[np.ndarray, ' draws'],
) -> tuple[int, int, int, int]:
  """Returns a crop of random area and aspect ratio, uniformly placed.

  The rule of torchvision's RandomResizedCrop: ten attempts at a share of the area (uniform) and a
  ratio width / height (log-uniform) that fit; else the largest centre crop within `ratio`.

  Args:
    height, width: of the image.
    area, ratio: ranges.
    uniform: numbers of `draw`.
  Returns:
    (top, left, height, width).
  """
  low, high = np.log(ratio)
  for attempt in range(_ATTEMPTS):
    target = height * width * (area[0] + uniform[2 * attempt] * (area[1] - area[0]))
    aspect = np.exp(low + uniform[2 * attempt + 1] * (high - low))
    columns = round(np.sqrt(target * aspect))
    rows = round(np.sqrt(target / aspect))
    if 0 < rows <= height and 0 < columns <= width:
      top = int(uniform[-3] * (height - rows + 1))
      left = int(uniform[-2] * (width - columns + 1))
      return top, left, rows, columns
  rows, columns = height, width
  if width / height < ratio[0]:
    rows = max(1, min(height, round(width / ratio[0])))
  elif width / height > ratio[1]:
    columns = max(1, min(width, round(height * ratio[1])))
  return (height - rows) // 2, (width - columns) // 2, rows, columns


class TrainTransform:
  """Bytes or pixels to an augmented training image.

  Args:
    settings: of `config.data`.
    preprocessing: of the network.
    mirror: False forbids flips.
    host_format: what travels to the device.
  """

  def __init__(self, settings: DataSettings, preprocessing: Preprocessing, mirror: bool,
               host_format: HostFormat):
    self._area, self._ratio = settings.crop_area, settings.crop_ratio
    self._augment = settings.augment
    self._flip = settings.flip and mirror
    self._preprocessing = preprocessing
    self.host_format = host_format

  def __call__(self, data: bytes | UInt8[np.ndarray, 'h w 3'], out: Shaped[np.ndarray, '...'],
               generator: np.random.Generator | None) -> None:
    rgb = self.host_format.target(out)
    if self._augment:
      self._crop(data, rgb, draw(generator))
    else:
      evaluate(data, self._preprocessing, rgb)
    self.host_format.write(rgb, out)

  def _crop(self, data, rgb, uniform):
    shape = rgb.shape[:2]

    def choose(size):
      return random_crop(*size, self._area, self._ratio, uniform), shape

    if isinstance(data, np.ndarray):
      pixels, crop = data, choose(data.shape[:2])[0]
    else:
      pixels, crop = decode_region(data, choose)
    resize_into(pixels, crop, rgb, bool(self._flip and uniform[-1] < 0.5))


class EvaluationTransform:
  """Bytes or pixels to the evaluation image.

  Args:
    preprocessing: of the network.
    host_format: what travels to the device.
  """

  def __init__(self, preprocessing: Preprocessing, host_format: HostFormat):
    self._preprocessing, self.host_format = preprocessing, host_format

  def __call__(self, data: bytes | UInt8[np.ndarray, 'h w 3'], out: Shaped[np.ndarray, '...'],
               generator: np.random.Generator | None = None) -> None:
    del generator
    rgb = self.host_format.target(out)
    evaluate(data, self._preprocessing, rgb)
    self.host_format.write(rgb, out)


def evaluate(data: bytes | UInt8[np.ndarray, 'h w 3'], preprocessing: Preprocessing,
             out: UInt8[np.ndarray, 'rows columns 3']) -> None:
  """Writes the evaluation image of encoded bytes or RGB pixels.

  Raises:
    ImageError: `data` is no image, or a damaged one.
  """
  image = data if isinstance(data, np.ndarray) else decode_image(data)
  out[...] = evaluation_transform(image, preprocessing)
