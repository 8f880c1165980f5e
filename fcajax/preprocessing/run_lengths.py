"""Masks as COCO's run-length codes; pycocotools does the work and is an optional dependency."""
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from fcajax.errors import UserError
from fcajax.typing import Bool, Shaped


def coco_masks() -> ModuleType:
  """Returns `pycocotools.mask`.

  Raises:
    UserError: it is not installed.
  """
  try:
    from pycocotools import mask
  except ModuleNotFoundError as error:
    raise UserError("masks and COCO's metrics need pycocotools; install it with "
                    "`pip install 'fcajax[detection]'`") from error
  return mask


def encode_masks(masks: Shaped[np.ndarray, 'n h w']) -> list[dict]:
  """Returns the code of each mask, {'size': [h, w], 'counts': text}, as results in JSON hold it.

  Args:
    masks: bool, or numbers of which all but 0 belong to the mask.
  """
  columns = np.asfortranarray(np.moveaxis(np.asarray(masks) != 0, 0, -1).astype(np.uint8))
  return [{'size': list(map(int, code['size'])), 'counts': code['counts'].decode()}
          for code in coco_masks().encode(columns)]


def decode_masks(codes: Sequence[dict], size: tuple[int, int]) -> Bool[np.ndarray, 'n h w']:
  """Returns the masks of codes whose counts are compressed, as text or bytes.

  Args:
    codes: as `encode_masks` returns them.
    size: (height, width), of which they all are.
  """
  if not codes:
    return np.zeros((0, *size), bool)
  return np.moveaxis(coco_masks().decode(list(codes)), -1, 0).astype(bool)
