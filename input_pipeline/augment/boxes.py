"""Images with boxes and masks for training and evaluation: resize, flip and pad to static shapes.

The image keeps its aspect ratio and is padded to one of a few shapes; the objects of an image are
padded to a fixed number. What travels to the device is uint8; `fcajax.preprocessing` normalises it
there.
"""
from collections.abc import Callable

import jax
import numpy as np
import simplejpeg

from fcajax.input_pipeline.augment.masks import bitmap, box_mask
from fcajax.input_pipeline.detection_settings import DetectionSettings
from fcajax.input_pipeline.sources.annotations import ImageRecord
from fcajax.preprocessing.decode import ImageError, decode_region, read_jpeg_header
from fcajax.preprocessing.host_formats import HostFormat, Rgb
from fcajax.preprocessing.keep_aspect import bucket_of, bucket_shapes, resize_into, resized_size
from fcajax.typing import Float, UInt8


class DetectionTransform:
  """Makes an example of an image and its record, written into a slot of a batch.

  An example holds, with M = max_boxes and boxes in pixels of the resized image:

      image          uint8 [height, width, 3], or what the host format says; padded at the right
                     and below with zeros
      image_size     int32 [2], height and width of the resized image in the padded one
      original_size  int32 [2], height and width of the image as stored
      scale          float32 [2], resized / original, vertical and horizontal
      boxes          float32 [M, 4], corners x1, y1, x2, y2; zeros where there is no object
      labels         int32 [M]; 0 where there is no object
      valid          bool [M], True where there is an object or a crowd
      crowd          bool [M], True for a region that is neither object nor background
      masks          uint8 [M, S, S], share of each cell of the box that the object covers (255 is
                     all of it); with masks='box' in training
      bitmaps        uint8 [M, height, width / 8], `numpy.packbits` of whole bitmaps; with
                     masks='bitmap' in training

  Args:
    settings: of sizes, flips and masks.
    train: True makes masks, and leaves out objects without an outline if there are masks.
    host_format: makes the format of `fcajax.preprocessing.host_formats` for a (height, width).
  """

  def __init__(self, settings: DetectionSettings, *, train: bool,
               host_format: Callable[[tuple[int, int]], HostFormat] = Rgb):
    self.settings = settings
    self.shapes = bucket_shapes(settings)
    self._formats = [host_format(tuple(side * settings.enlarge for side in shape))
                     for shape in self.shapes]
    self._masks = settings.masks if train else 'none'

  def bucket(self, size: tuple[int, int]) -> int:
    """Returns the index in `shapes` for an image of (height, width) `size`."""
    return bucket_of(size, self.settings)

  def spec(self, bucket: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shape and dtype of every array of an example of a bucket."""
    height, width = self.shapes[bucket]
    count, cells = self.settings.max_boxes, self.settings.mask_size
    entries = {
        'image': (self._formats[bucket].shape, self._formats[bucket].dtype),
        'image_size': ((2,), np.int32), 'original_size': ((2,), np.int32),
        'scale': ((2,), np.float32), 'boxes': ((count, 4), np.float32),
        'labels': ((count,), np.int32), 'valid': ((count,), np.bool_),
        'crowd': ((count,), np.bool_)}
    if self._masks == 'box':
      entries['masks'] = (count, cells, cells), np.uint8
    elif self._masks == 'bitmap':
      entries['bitmaps'] = (count, height, -(-width // 8)), np.uint8
    return {name: jax.ShapeDtypeStruct(*entry) for name, entry in entries.items()}

  def __call__(self, data: bytes | UInt8[np.ndarray, 'h w 3'], record: ImageRecord, bucket: int,
               out: dict[str, np.ndarray], generator: np.random.Generator | None = None) -> None:
    """Writes an example.

    Args:
      data: encoded bytes, or RGB pixels.
      record: of the image.
      bucket: that the image's size belongs to.
      out: arrays of the shapes of `spec`, filled with zeros.
      generator: of the flip; None flips nothing.
    Raises:
      ImageError: the bytes are no image, or one of another size than the record says.
    """
    settings = self.settings
    resized = resized_size(record.size, settings)
    mirror = generator is not None and generator.random() < settings.flip
    self._write_image(data, record, bucket, resized, mirror, out['image'])
    out['image_size'][:], out['original_size'][:] = resized, record.size
    out['scale'][:] = np.divide(resized, record.size)
    rows = self._rows(record)
    chosen, count = record.select(rows), len(rows)
    boxes = resize_boxes(chosen.boxes, out['scale'])
    out['boxes'][:count] = flip_boxes(boxes, resized[1]) if mirror else boxes
    out['labels'][:count] = chosen.labels
    out['valid'][:count], out['crowd'][:count] = True, chosen.crowd
    if self._masks == 'none':
      return
    for i, outline in enumerate(chosen.outlines):
      if chosen.crowd[i]:
        continue
      if self._masks == 'box':
        out['masks'][i] = box_mask(outline, record.size, resized, boxes[i], settings.mask_size,
                                   mirror)
      else:
        whole = np.zeros(self.shapes[bucket], np.uint8)
        whole[:resized[0], :resized[1]] = bitmap(outline, record.size, resized, mirror)
        out['bitmaps'][i] = np.packbits(whole, axis=-1)

  def _rows(self, record: ImageRecord) -> np.ndarray:
    """Returns which objects the example holds: all that fit, the objects before the crowds."""
    usable = np.ones(len(record.labels), bool)
    if self._masks != 'none':
      usable &= np.array([o is not None for o in record.outlines], bool) | record.crowd
    rows = np.flatnonzero(usable)
    if len(rows) > self.settings.max_boxes:
      best = np.lexsort((-record.areas[rows], record.crowd[rows]))[:self.settings.max_boxes]
      rows = rows[np.sort(best)]
    return rows[np.argsort(record.crowd[rows], kind='stable')]

  def _write_image(self, data: bytes | np.ndarray, record: ImageRecord, bucket: int,
                   resized: tuple[int, int], mirror: bool, out: np.ndarray) -> None:
    host_format, enlarge = self._formats[bucket], self.settings.enlarge
    target = tuple(side * enlarge for side in resized)
    rgb = host_format.target(out)
    pixels, crop = decode_stored(data, record.size, target)
    # The format's own buffer holds the image before.
    rgb[target[0]:] = 0
    rgb[:, target[1]:] = 0
    resize_into(pixels, crop, rgb[:target[0], :target[1]], mirror)
    host_format.write(rgb, out)


def decode_stored(
    data: bytes | np.ndarray, size: tuple[int, int], target: tuple[int, int]) -> tuple:
  """Returns (pixels, crop) as `decode_region` does, for the whole image.

  Annotations of some tools are of the pixels as stored, before EXIF orientation turns them: the
  size tells.
  """
  if isinstance(data, np.ndarray):
    _check_size(data.shape[:2], size)
    return data, (0, 0, *size)
  header = read_jpeg_header(data)
  if (header is not None and header.components in (1, 3) and header.orientation > 4
      and (header.height, header.width) == tuple(size) != header.upright_shape):
    try:
      return simplejpeg.decode_jpeg(data), (0, 0, *size)
    except ValueError as error:
      raise ImageError(str(error)) from error

  def choose(found):
    _check_size(found, size)
    return (0, 0, *found), target

  return decode_region(data, choose)


def _check_size(found: tuple, expected: tuple) -> None:
  if tuple(found) != tuple(expected):
    raise ImageError(f'it is {found[0]} x {found[1]} pixels high and wide, but its annotations are '
                     f'for {expected[0]} x {expected[1]}')


def resize_boxes(boxes: Float[np.ndarray, 'n 4'],
                 scale: Float[np.ndarray, '2']) -> Float[np.ndarray, 'n 4']:
  """Returns boxes x1, y1, x2, y2 times a vertical and a horizontal scale."""
  return (boxes * np.array([scale[1], scale[0]] * 2)).astype(np.float32)


def flip_boxes(boxes: Float[np.ndarray, 'n 4'], width: float) -> Float[np.ndarray, 'n 4']:
  """Returns boxes x1, y1, x2, y2 in an image of `width` that is flipped left to right."""
  return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], -1)
