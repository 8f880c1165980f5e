"""Encoded images to upright RGB: one decoder for training, evaluation and prediction.

JPEG goes through libjpeg-turbo (simplejpeg, which releases the GIL and decodes into a given
buffer); everything that is not a plain grey or colour JPEG, and every other format, through Pillow.
"""
import dataclasses
import io
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageChops, ImageOps

from fcajax.errors import UserError
from fcajax.typing import UInt8

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.ppm')

# A header can claim any size; Pillow refuses the same.
_MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
_KEPT_BUFFER = 1 << 26  # bytes: larger images get a buffer of their own
_MCU_ROWS = 16  # of one row of minimum coded units at 4:2:0
_buffers = threading.local()


class ImageError(UserError):
  """The bytes are no image, or an image that is cut short or damaged."""


@dataclasses.dataclass(frozen=True)
class JpegHeader:
  """What a decoder must know before it decodes.

  Attributes:
    height: rows, as stored (before EXIF orientation).
    width: columns, as stored.
    components: 1 grey, 3 colour, 4 CMYK.
    sequential: one interleaved scan in baseline or extended order, so that rows arrive in order.
    frame: byte offset of the frame header's marker.
    orientation: EXIF orientation 1..8.
    adobe: written by Adobe's rules, which store CMYK inverted.
  """
  height: int
  width: int
  components: int
  sequential: bool
  frame: int
  orientation: int
  adobe: bool

  @property
  def upright_shape(self) -> tuple[int, int]:
    """Height and width after EXIF orientation."""
    shape = self.height, self.width
    return shape[::-1] if self.orientation > 4 else shape


def read_jpeg_header(data: bytes) -> JpegHeader | None:
  """Walks the markers up to the first scan; returns None for no JPEG or one without a frame."""
  if data[:2] != b'\xff\xd8':
    return None
  position, end, frame, orientation, adobe = 2, len(data), None, 1, False
  while position + 4 <= end and data[position] == 0xFF:
    marker = data[position + 1]
    if marker == 0xFF:  # fill byte
      position += 1
      continue
    length = data[position + 2] << 8 | data[position + 3]
    if marker == 0xE1 and data[position + 4:position + 8] == b'Exif':
      orientation = _exif_orientation(data)
    elif marker == 0xEE and data[position + 4:position + 9] == b'Adobe':
      adobe = True
    elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      frame = position
    elif marker == 0xDA:
      if frame is None or frame + 10 > end or position + 5 > end:
        return None
      components = data[frame + 9]
      return JpegHeader(
          height=data[frame + 5] << 8 | data[frame + 6],
          width=data[frame + 7] << 8 | data[frame + 8], components=components,
          sequential=data[frame + 1] in (0xC0, 0xC1) and data[position + 4] == components,
          frame=frame, orientation=orientation, adobe=adobe)
    position += 2 + length
  return None


def _exif_orientation(data):
  try:
    with Image.open(io.BytesIO(data)) as image:
      orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
  except (OSError, ValueError, SyntaxError):
    return 1
  return orientation if orientation in range(1, 9) else 1


def _upright(pixels, orientation):
  """Applies an EXIF orientation to `[H, W, 3]`."""
  if orientation > 4:
    pixels = pixels.transpose(1, 0, 2)
  # After the transposition of 5..8: 6 and 7 mirror left to right, 7 and 8 top to bottom.
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  return pixels


def _buffer(size):
  """A buffer of this thread: a fresh one each image costs a page fault every 4 kB."""
  if size > _KEPT_BUFFER:
    return np.empty(size, np.uint8)
  buffer = getattr(_buffers, 'pixels', None)
  if buffer is None or buffer.size < size:
    buffer = _buffers.pixels = np.empty(max(size, 1 << 21), np.uint8)
  return buffer


def _with_height(data, frame, height):
  """A copy of a JPEG in this thread's memory whose frame header says `height`."""
  copy = getattr(_buffers, 'encoded', None)
  if copy is None or len(copy) < len(data):
    copy = bytearray(max(len(data), 1 << 18))
    if len(data) <= _KEPT_BUFFER:
      _buffers.encoded = copy
  view = memoryview(copy)[:len(data)]
  view[:] = data
  view[frame + 5], view[frame + 6] = height >> 8, height & 255
  return view


def _check_size(header):
  pixels = header.height * header.width
  if not 0 < pixels <= _MAX_PIXELS:
    raise ImageError(f'its header says {header.height} x {header.width} pixels; between 1 and '
                     f'{_MAX_PIXELS} are decoded')


def _to_rgb(image):
  """A Pillow image of any mode to 8-bit RGB; transparency is composited on white."""
  if image.mode == 'RGB' and 'transparency' not in image.info:
    return image
  if image.mode.startswith('I'):
    # Pillow would clip 16-bit grey at 255; 65535 / 257 = 255.
    grey = np.asarray(image).astype(np.int64)
    grey = (np.clip(grey, 0, 65535) + 128) // 257
    return Image.fromarray(grey.astype(np.uint8)).convert('RGB')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert('RGB')
  return image.convert('RGB')


def _decode_with_pillow(data, header=None):
  try:
    with Image.open(io.BytesIO(data)) as image:
      image = ImageOps.exif_transpose(image)
      if image.mode == 'CMYK' and header is not None and not header.adobe:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for Adobe's
      return np.array(_to_rgb(image))
  except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError,
          AttributeError, OverflowError, Image.DecompressionBombError) as error:
    # Pillow's parsers answer damaged files with any of these.
    raise ImageError(_reason(data, error)) from error


def _reason(data, error):
  if not data:
    return 'the file is empty'
  if isinstance(error, Image.UnidentifiedImageError):
    return f'not an image; it starts with {bytes(data[:12])!r}'
  return str(error) or type(error).__name__


def decode_image(source: Any) -> UInt8[np.ndarray, 'h w 3']:
  """Decodes an image to upright 8-bit RGB.

  Grey is repeated over the channels, CMYK (inverted by Adobe or not) converted, palettes looked up,
  16-bit scaled to 8, transparency composited on white, EXIF orientation applied; of an animation
  the first frame is taken.

  Args:
    source: the encoded bytes, or a path.
  Returns:
    A contiguous array that the caller may change.
  Raises:
    ImageError: no image, or cut short or damaged; a path is named.
    FileNotFoundError: no such path.
  """
  if isinstance(source, (str, os.PathLike)):
    with open(source, 'rb') as file:
      data = file.read()
    try:
      return decode_image(data)
    except ImageError as error:
      raise ImageError(f"'{os.fspath(source)}': {error}") from error
  data = bytes(source)
  header = read_jpeg_header(data)
  if header is not None and header.components in (1, 3):
    _check_size(header)
    try:
      pixels = simplejpeg.decode_jpeg(data)
    except ValueError:
      # Strict decoding refuses harmless oddities too; Pillow refuses only what is missing.
      return _decode_with_pillow(data, header)
    return np.ascontiguousarray(_upright(pixels, header.orientation))
  return _decode_with_pillow(data, header)


def decode_region(
    data: bytes, choose: Callable[[tuple[int, int]], Any],
) -> tuple[UInt8[np.ndarray, 'h w 3'], Sequence[float]]:
  """Decodes as little of an image as a crop needs.

  Rows below the crop are not decoded (the frame header is told a smaller height), and where the
  crop is at least twice the output, the decoder's own 1/2, 3/8, 1/4 or 1/8 scale is used.

  Args:
    data: the encoded bytes.
    choose: called with the upright (height, width); returns ((top, left, height, width), (h, w)),
      the crop in those pixels and the output size that it will be resized to.
  Returns:
    (pixels, crop): RGB, valid until this thread decodes again, and the crop's (top, left, height,
    width) within it.
  Raises:
    ImageError: no image, or cut short or damaged.
  """
  header = read_jpeg_header(data)
  if header is None or header.components not in (1, 3):
    pixels = _decode_with_pillow(data, header)
    return pixels, choose(pixels.shape[:2])[0]
  _check_size(header)
  height, width = header.upright_shape
  (top, left, rows, columns), output = choose((height, width))
  # A whole file ends with an end-of-image marker; one that does not is left to the strict path.
  whole = data.rfind(b'\xff\xd9', len(data) // 2) >= 0
  kept = header.height
  if header.sequential and header.orientation == 1 and whole:
    # The last line of a row of units borrows chroma from the next row, hence one line more.
    kept = min(kept, -(-(top + rows + 1) // _MCU_ROWS) * _MCU_ROWS)
  shrink = min(rows / output[0], columns / output[1])
  scale = {}
  if shrink >= 2:
    scaled = kept / shrink, header.width / shrink
    if header.orientation > 4:
      scaled = header.height / shrink, header.width / shrink
    scale = {'min_height': max(1, int(np.ceil(scaled[0]))),
             'min_width': max(1, int(np.ceil(scaled[1]))), 'min_factor': 2}
  source = data if kept == header.height else _with_height(data, header.frame, kept)
  try:
    stored = simplejpeg.decode_jpeg_header(source, **scale)[:2] if scale else (kept, header.width)
    pixels = simplejpeg.decode_jpeg(source, buffer=_buffer(stored[0] * stored[1] * 3),
                                    strict=kept == header.height, **scale)
  except ValueError:
    pixels = _decode_with_pillow(data, header)
    if pixels.shape[:2] != (height, width):
      raise ImageError(f'the decoders disagree about its size: {height} x {width} and '
                       f'{pixels.shape[0]} x {pixels.shape[1]}') from None
    return pixels, (top, left, rows, columns)
  vertical, horizontal = pixels.shape[0] / kept, pixels.shape[1] / header.width
  pixels = _upright(pixels, header.orientation)
  if header.orientation > 4:
    vertical, horizontal = horizontal, vertical
  return pixels, (top * vertical, left * horizontal, rows * vertical, columns * horizontal)
