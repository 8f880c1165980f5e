"""1,797 handwritten digits of 8 x 8 pixels, stored beside this file (digits.txt says whose)."""
import pathlib

import cv2
import numpy as np

from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources.base import ArraySource, Splits, stratified_split
from fcajax.typing import Int, UInt8

SIZE = 32
_FILE = pathlib.Path(__file__).with_name('digits.npz')


def read_digits() -> tuple[UInt8[np.ndarray, 'n 8 8'], Int[np.ndarray, ' n']]:
  """Returns (images of 0..16, ink is high, and labels), in the order of the published test set."""
  with np.load(_FILE) as content:
    return content['images'], content['labels'].astype(np.int64)


def load_splits(settings: DataSettings, seed: int) -> Splits:
  """Opens the digits, enlarged to 32 x 32 grey RGB; a share of each is held out.

  Raises:
    UserError: see `stratified_split`.
  """
  images, labels = read_digits()
  images = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            for image in (images.astype(np.float64) * (255 / 16)).astype(np.float32)]
  images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
  images = np.repeat(images[..., None], 3, axis=-1)
  kept, held = stratified_split(labels, settings.validation_fraction, seed)

  def part(indices):
    return ArraySource(images[indices], labels[indices], [f'digit {i}' for i in indices])

  return Splits(part(kept), part(held), list('0123456789'), mirror=False)
