"""Random resized crop and flip on the host: encoded bytes to a uint8 training image."""
import cv2
import numpy as np

from fcajax.images import decode_image, decode_region
from fcajax.preprocess import evaluation_transform

_ATTEMPTS = 10
# Two numbers an attempt, two for the position, one for the flip.
_DRAWS = 2 * _ATTEMPTS + 3
_TRAIN_STREAM = 1


def draw(seed, position):
  """The random numbers of one training example, uniform in [0, 1), `[23]`.

  They depend on the seed and the example's place in the training order alone: not on the batch
  size, the process, the thread or what was drawn before.
  """
  generator = np.random.Philox(key=[seed % 2**64, _TRAIN_STREAM], counter=[0, 0, 0, position])
  return np.random.Generator(generator).random(_DRAWS)


def random_crop(height, width, area, ratio, uniform):
  """A crop of random area and aspect ratio, uniformly placed.

  The rule of torchvision's RandomResizedCrop: ten attempts at a share of the area (uniform) and a
  ratio width / height (log-uniform) that fit; else the largest centre crop within `ratio`.

  Args:
    height, width: of the image.
    area, ratio: ranges.
    uniform: numbers of `draw`.
  Returns:
    (top, left, height, width), integers.
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


def resize_into(pixels, crop, out, mirror):
  """Resizes a crop into a slot of a batch.

  Bilinear up to a shrinkage of two, area averaging beyond.

  Args:
    pixels: uint8 `[H, W, 3]`.
    crop: (top, left, height, width) in its pixels; rounded outwards.
    out: uint8 `[h, w, 3]`, contiguous; written.
    mirror: whether to flip left to right.
  """
  top, left = max(0, int(crop[0])), max(0, int(crop[1]))
  bottom = max(top + 1, min(pixels.shape[0], int(np.ceil(crop[0] + crop[2] - 1e-6))))
  right = max(left + 1, min(pixels.shape[1], int(np.ceil(crop[1] + crop[3] - 1e-6))))
  view = pixels[top:bottom, left:right]
  rows, columns = out.shape[:2]
  shrinks = max(view.shape[0] / rows, view.shape[1] / columns)
  method = cv2.INTER_AREA if shrinks > 2 else cv2.INTER_LINEAR
  if mirror:
    cv2.flip(cv2.resize(view, (columns, rows), interpolation=method), 1, dst=out)
  else:
    cv2.resize(view, (columns, rows), dst=out, interpolation=method)


class TrainTransform:
  """Bytes or pixels to an augmented training image, written into a slot of the batch.

  Args:
    settings: a `DataSettings`.
    preprocessing: a `Preprocessing`.
    mirror: False forbids flips.
    seed: of the augmentation.
    wire: what travels to the device, see `input_pipeline.wire`.
  """

  def __init__(self, settings, preprocessing, mirror, seed, wire):
    self._area, self._ratio = settings.crop_area, settings.crop_ratio
    self._augment = settings.augment
    self._flip = settings.flip and mirror
    self._preprocessing = preprocessing
    self._seed = int(seed)
    self.wire = wire

  def __call__(self, data, position, out):
    """Writes the image; raises ImageError where `data` is none."""
    rgb = self.wire.target(out)
    if self._augment:
      self._crop(data, position, rgb)
    else:
      evaluate(data, self._preprocessing, rgb)
    self.wire.write(rgb, out)

  def _crop(self, data, position, rgb):
    uniform = draw(self._seed, position)
    shape = rgb.shape[:2]

    def choose(size):
      return random_crop(*size, self._area, self._ratio, uniform), shape

    if isinstance(data, np.ndarray):
      pixels, crop = data, choose(data.shape[:2])[0]
    else:
      pixels, crop = decode_region(data, choose)
    resize_into(pixels, crop, rgb, self._flip and uniform[-1] < 0.5)


class EvaluationTransform:
  """Bytes or pixels to the evaluation image, written into a slot of the batch.

  Args:
    preprocessing: a `Preprocessing`.
    wire: what travels to the device, see `input_pipeline.wire`.
  """

  def __init__(self, preprocessing, wire):
    self._preprocessing, self.wire = preprocessing, wire

  def __call__(self, data, out):
    """Writes the image; raises ImageError where `data` is none."""
    rgb = self.wire.target(out)
    evaluate(data, self._preprocessing, rgb)
    self.wire.write(rgb, out)


def evaluate(data, preprocessing, out):
  """Writes the evaluation image of bytes or pixels, RGB; ImageError where `data` is none."""
  image = data if isinstance(data, np.ndarray) else decode_image(data)
  out[...] = evaluation_transform(image, preprocessing)
