"""Host formats: how images travel to the device as RGB, 4:2:0 planes or integer coefficients.

The classes pack an image on the host; the `unpack_...` functions undo it on the device.
`fcajax.preprocessing.spec.device_transform` accepts all three and gives the same input to rounding.
"""
import threading
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import jax.numpy as jnp
import numpy as np

from fcajax.errors import UserError
from fcajax.ops.dct import dct_basis
from fcajax.selection.coefficients import coefficient_subset
from fcajax.typing import AnyArray, Array, Float, Int, Shaped, UInt8

_buffers = threading.local()
_SMOOTHING = np.array([0.125, 0.75, 0.125], np.float32)
# An int8 coefficient covers this many standard deviations on either side of zero and is clipped
# beyond; one step is 8/127 = 0.063 standard deviations.
INT8_DEVIATIONS = 8


def _buffer(name, shape, dtype):
  """An uninitialised array of this thread, reused from image to image."""
  buffer = getattr(_buffers, name, None)
  if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
    buffer = np.empty(shape, dtype)
    setattr(_buffers, name, buffer)
  return buffer


def _ycbcr(rgb):
  """Y, Cb and Cr, uint8 `[H, W]` each, rounded; valid until this thread's next call."""
  shape = rgb.shape[:2]
  mixed = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb, dst=_buffer('ycrcb', rgb.shape, np.uint8))
  planes = [_buffer(name, shape, np.uint8) for name in ('y', 'cr', 'cb')]
  cv2.split(mixed, planes)
  return planes[0], planes[2], planes[1]


def _halved(plane):
  height, width = plane.shape
  return cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


@runtime_checkable
class HostFormat(Protocol):
  """How an image travels from the host to the device.

  Attributes:
    shape, dtype: of one image as it travels.
    image_shape: (height, width) of the RGB image that it is made of.
  """
  shape: tuple[int, ...]
  dtype: np.dtype
  image_shape: tuple[int, int]

  def target(self, out: Shaped[np.ndarray, '...']) -> UInt8[np.ndarray, 'h w 3']:
    """Returns where the RGB image is to be written before `write` is called."""

  def write(self, rgb: UInt8[np.ndarray, 'h w 3'], out: Shaped[np.ndarray, '...']) -> None:
    """Turns the RGB image into what travels."""


class Rgb:
  """uint8 RGB `[H, W, 3]`.

  Args:
    shape: (height, width).
  """
  dtype = np.dtype(np.uint8)

  def __init__(self, shape: Sequence[int]):
    self.image_shape = tuple(shape)
    self.shape = (*shape, 3)

  def target(self, out):
    """Where the RGB image is to be written: here the slot itself."""
    return out

  def write(self, rgb, out):
    """Turns the RGB image at `target` into what travels; nothing to do."""


class _Converted:
  """A representation that is made of an RGB image in a buffer of the thread."""

  def target(self, out):
    del out
    return _buffer('rgb', (*self.image_shape, 3), np.uint8)


class Planes(_Converted):
  """JPEG's 4:2:0: uint8 `[3H/2, W]`, H rows of Y, then Cb's and Cr's H/2 x W/2 samples.

  Half the bytes of RGB. Chroma is the mean of 2 x 2 pixels.
  """
  dtype = np.dtype(np.uint8)

  def __init__(self, shape: Sequence[int]):
    height, width = shape
    if height % 4 or width % 2:
      raise UserError(f"data.host_format='420' needs a height that is a multiple of 4 and an even "
                      f'width; got {height} x {width}')
    self.image_shape = tuple(shape)
    self.shape = (height * 3 // 2, width)

  def write(self, rgb, out):
    height, width = self.image_shape
    luma, *chroma = _ycbcr(rgb)
    out[:height] = luma
    for i, plane in enumerate(chroma):
      start = height + i * height // 4
      out[start:start + height // 4] = _halved(plane).reshape(height // 4, width)


def unpack_planes(
    packed: UInt8[AnyArray, 'n rows w'],
) -> tuple[UInt8[AnyArray, 'n h w 1'], UInt8[AnyArray, 'n h2 w2 2']]:
  """Returns luma and half-size chroma of images that `Planes` packed."""
  n, rows, width = packed.shape
  height = rows * 2 // 3
  chroma = packed[:, height:].reshape(n, 2, height // 2, width // 2)
  return packed[:, :height, :, None], chroma.transpose(0, 2, 3, 1)


def coefficient_bound(indices: Sequence[int] | Int[np.ndarray, ' k']) -> Float[np.ndarray, ' k']:
  """Returns the largest absolute value that pixels in 0..255 can give block-DCT coefficients."""
  basis = np.abs(dct_basis(8, dtype=np.float64)).sum(0)
  indices = np.asarray(indices)
  return 128 * basis[indices // 8] * basis[indices % 8]


def coefficient_scale(coefficients: Any, bits: int, std: Any = None) -> Float[np.ndarray, ' k']:
  """Returns the step of each integer coefficient; a coefficient is the integer times its step.

  16 bits cover every value that pixels can give, in steps of at most 0.032, so the error is at most
  0.016: less than a tenth of what rounding pixels to 8 bits costs on average. 8 bits cover 8
  standard deviations (or every possible value, where that is less).

  Args:
    coefficients: as `coefficient_subset` takes it.
    bits: 16 or 8.
    std: standard deviations `[k]`; needed for 8 bits.
  """
  subset = coefficient_subset(coefficients)
  bound = np.concatenate([coefficient_bound(part) for part in subset.components if part])
  if bits == 8:
    bound = np.minimum(bound, INT8_DEVIATIONS * np.asarray(std))
  return (bound / (2 ** (bits - 1) - 1)).astype(np.float32)


class Coefficients(_Converted):
  """Selected block-DCT coefficients as integers, `[H/8, W/8, k]`.

  Args:
    shape: (height, width) of the image.
    coefficients: as `coefficient_subset` takes it.
    chroma: 'full' or 'half'.
    scale: the step of each coefficient, `[k]`.
    bits: 16 or 8.
  """

  def __init__(
      self, shape: Sequence[int], coefficients: Any, chroma: str, scale: Any, bits: int):
    self.image_shape = tuple(shape)
    self.dtype = np.dtype(np.int16 if bits == 16 else np.int8)
    self._limit = 2 ** (bits - 1) - 1
    self._chroma = chroma
    self._subset = coefficient_subset(coefficients)
    self.shape = (shape[0] // 8, shape[1] // 8, len(self._subset))
    basis = dct_basis(8, dtype=np.float64).T
    self._filters, self._offsets, start = [], [], 0
    for indices in self._subset.components:
      u, v = np.divmod(np.asarray(indices, int), 8)
      step = np.asarray(scale, np.float64)[start:start + len(indices)]
      start += len(indices)
      filters = np.einsum('ki,kj->ijk', basis[u], basis[v]).reshape(64, -1) / step
      self._filters.append(np.ascontiguousarray(filters, np.float32))
      # The level shift of 128 touches the DC term alone.
      self._offsets.append((filters.sum(0) * -128).astype(np.float32))

  def _transform(self, plane, component):
    """uint8 or float32 plane `[H, W]` to `[H/8 * W/8, k]` integers as float32."""
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    # Eight samples of a row move as one item, so that gathering blocks copies long words.
    item = np.dtype((np.void, 8 * plane.itemsize)) if plane.itemsize > 1 else np.uint64
    items = plane.view(item).reshape(rows, 8, columns).transpose(0, 2, 1)
    blocks = np.ascontiguousarray(items).view(plane.dtype).reshape(rows * columns, 64)
    values = blocks.astype(np.float32, copy=False) @ self._filters[component]
    values += self._offsets[component]
    np.rint(values, out=values)
    return np.clip(values, -self._limit, self._limit, out=values)

  def write(self, rgb, out):
    planes = _ycbcr(rgb)
    flat = out.reshape(-1, self.shape[-1])
    start = 0
    for component, (plane, indices) in enumerate(zip(planes, self._subset.components)):
      if not indices:
        continue
      end = start + len(indices)
      if component == 0:
        flat[:, start:end] = self._transform(plane, component)
      elif self._chroma == 'full':
        smooth = cv2.sepFilter2D(plane, cv2.CV_32F, _SMOOTHING, _SMOOTHING,
                                 borderType=cv2.BORDER_REPLICATE)
        flat[:, start:end] = self._transform(smooth, component)
      else:
        half = self._transform(_halved(plane), component)
        rows, columns = self.shape[0] // 2, self.shape[1] // 2
        grid = out.reshape(rows, 2, columns, 2, self.shape[-1])
        grid[..., start:end] = half.reshape(rows, 1, columns, 1, -1)
      start = end


def unpack_coefficients(
    x: Int[AnyArray, 'n rows columns k'], scale: Sequence[float] | Float[np.ndarray, ' k'],
) -> Float[Array, 'n rows columns k']:
  """Returns the coefficients that `Coefficients` packed, float32."""
  return jnp.asarray(x).astype(jnp.float32) * np.asarray(scale, np.float32)


def choose(settings: Any, preprocessing: Any) -> HostFormat:
  """Returns the host format that the settings ask for.

  Args:
    settings: has `representation`, `dct_on`, `dct_bits` and `host_format`, as `config.data`.
    preprocessing: of the network.
  """
  shape = preprocessing.shape
  if settings.representation == 'dct' and settings.dct_on == 'host':
    return Coefficients(shape, preprocessing.coefficients, preprocessing.chroma,
                        preprocessing.coefficient_scale, settings.dct_bits)
  halved = settings.representation == 'dct' and preprocessing.chroma == 'half'
  if settings.host_format == '420' or (settings.host_format == 'auto' and halved):
    return Planes(shape)
  return Rgb(shape)
