"""Pictures of detections: boxes, outlines of masks, names and scores, drawn with Pillow."""
import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fcajax.preprocessing.run_lengths import decode_masks
from fcajax.typing import Bool, Float, Int, UInt8

_TINT = 0.35  # opacity of the colour inside a mask
_GOLDEN = 0.618034  # of the colour circle from one label to the next: neighbours differ most


def label_color(label: int) -> tuple[int, int, int]:
  """Returns the RGB colour of a label, the same in every picture."""
  value = 1.0 if label % 2 else 0.85
  return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.85, value))


def draw_detections(image: UInt8[np.ndarray, 'h w 3'], boxes: Float[np.ndarray, 'n 4'],
                    labels: Int[np.ndarray, ' n'], class_names: Sequence[str],
                    scores: Float[np.ndarray, ' n'] | None = None,
                    masks: Bool[np.ndarray, 'n h w'] | Sequence[dict] | None = None,
                    min_score: float = 0.0) -> UInt8[np.ndarray, 'h w 3']:
  """Returns a copy of an image with its detections, the surest on top.

  Args:
    image: RGB.
    boxes: corners x1, y1, x2, y2 in pixels of the image; those of no area are left out.
    labels: indices in `class_names`.
    class_names: in the order of the labels.
    scores: in 0..1, written beside the names; None for the truth.
    masks: of the image's size, as bitmaps or as run-length codes.
    min_score: detections below it are left out.
  """
  height, width = image.shape[:2]
  order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind='stable')
  shown = [i for i in order if (scores is None or scores[i] >= min_score)
           and np.isfinite(boxes[i]).all() and (boxes[i][2:] > boxes[i][:2]).all()]
  line = max(1, round(min(height, width) / 250))
  picture = Image.fromarray(image)
  if masks is not None:
    for i in shown:
      mask = masks[i] if isinstance(masks, np.ndarray) else decode_masks([masks[i]],
                                                                         (height, width))[0]
      _paint_mask(picture, mask, label_color(int(labels[i])), line)
  draw, font = ImageDraw.Draw(picture), ImageFont.load_default(max(10, round(height / 32)))
  for i in shown:
    color = label_color(int(labels[i]))
    draw.rectangle([float(c) for c in boxes[i]], outline=color, width=line)
    text = class_names[labels[i]] + (f' {scores[i]:.2f}' if scores is not None else '')
    _write(draw, font, text, boxes[i], color, picture.size)
  return np.asarray(picture)


def _paint_mask(picture: Image.Image, mask: Bool[np.ndarray, 'h w'], color: tuple[int, int, int],
                line: int) -> None:
  """Tints the mask and draws its outline, inside its edge."""
  whole = Image.fromarray(mask.astype(np.uint8) * 255)
  # A frame of zeros: at the image's border the outline would be missing otherwise.
  framed = Image.new('L', (whole.width + 2 * line, whole.height + 2 * line))
  framed.paste(whole, (line, line))
  core = framed.filter(ImageFilter.MinFilter(2 * line + 1)).crop(
      (line, line, line + whole.width, line + whole.height))
  opacity = np.where(mask, np.where(np.asarray(core) > 0, _TINT, 1.0), 0.0)
  picture.paste(color, (0, 0), Image.fromarray(np.rint(opacity * 255).astype(np.uint8)))


def _write(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
           text: str, box: Float[np.ndarray, '4'], color: tuple[int, int, int],
           size: tuple[int, int]) -> None:
  """Writes on a ground of `color`, above the box or, at the top of the image, inside it."""
  left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
  width, height = right - left + 4, bottom - top + 4
  x = int(np.clip(box[0], 0, max(0, size[0] - width)))
  y = int(box[1] - height if box[1] >= height else box[1])
  y = int(np.clip(y, 0, max(0, size[1] - height)))
  draw.rectangle((x, y, x + width, y + height), fill=color)
  bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
  draw.text((x + 2 - left, y + 2 - top), text, font=font, fill='black' if bright else 'white')


def picture_grid(rows: Sequence[Sequence[UInt8[np.ndarray, '_ _ 3']]],
                 width: int = 480) -> UInt8[np.ndarray, 'h w 3']:
  """Returns pictures in rows, as truth beside prediction, each `width` pixels wide.

  Args:
    rows: of RGB images, of any sizes.
    width: of one column in pixels.
  """
  gap, scaled = 4, []
  for row in rows:
    images = [Image.fromarray(picture) for picture in row]
    scaled.append([image.resize((width, max(1, round(image.height * width / image.width))))
                   for image in images])
  columns = max(len(row) for row in scaled)
  heights = [max(image.height for image in row) for row in scaled]
  canvas = Image.new('RGB', (columns * (width + gap) - gap, sum(heights) + gap * (len(rows) - 1)),
                     'white')
  y = 0
  for row, height in zip(scaled, heights):
    for column, image in enumerate(row):
      canvas.paste(image, (column * (width + gap), y))
    y += height + gap
  return np.asarray(canvas)
