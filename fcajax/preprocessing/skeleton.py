"""What a keypoint model's joints are: names, limbs, mirror pairs and OKS constants."""
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fcajax.errors import UserError

COCO_NAMES = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee',
    'right_knee', 'left_ankle', 'right_ankle')
# Of COCO's evaluation, in the order of COCO_NAMES.
COCO_SIGMAS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087,
               .087, .089, .089)


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """The joints of one kind of object; stored with every checkpoint and weights file.

  Attributes:
    names: of the K joints.
    limbs: pairs of joints to draw a line between, counted from 0.
    flip_pairs: pairs of joints that a mirror exchanges; all others stay themselves.
    sigmas: OKS constant of each joint, or () where none are known (then PCK judges).
  """
  names: tuple[str, ...]
  limbs: tuple[tuple[int, int], ...] = ()
  flip_pairs: tuple[tuple[int, int], ...] = ()
  sigmas: tuple[float, ...] = ()

  def __post_init__(self):
    count = len(self.names)
    if not count or len(set(self.names)) != count:
      raise UserError(f'names={list(self.names)} of the joints must be at least one, all different')
    for field in ('limbs', 'flip_pairs'):
      for pair in getattr(self, field):
        if len(pair) != 2 or len({*pair}) != 2 or not all(0 <= joint < count for joint in pair):
          raise UserError(f'{field}: {list(pair)} must be two different joints of 0 to {count - 1}')
    exchanged = [joint for pair in self.flip_pairs for joint in pair]
    if len(set(exchanged)) != len(exchanged):
      raise UserError(f'flip_pairs={list(map(list, self.flip_pairs))} hold a joint twice')
    if self.sigmas and (len(self.sigmas) != count or min(self.sigmas) <= 0):
      raise UserError(f'sigmas={list(self.sigmas)} must be one number above 0 for each of the '
                      f'{count} joints')

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-able dict that `from_dict` reads."""
    return {name: [list(item) if isinstance(item, tuple) else item for item in value]
            for name, value in dataclasses.asdict(self).items()}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Skeleton':
    """Reads what `to_dict` wrote."""
    return cls(tuple(values['names']), _pairs(values['limbs']), _pairs(values['flip_pairs']),
               tuple(values['sigmas']))

  @classmethod
  def of_category(
      cls, category: Mapping[str, Any], flip_pairs: Any = None, sigmas: Any = None,
  ) -> 'Skeleton':
    """Reads a category of a COCO keypoints file.

    Args:
      category: with 'keypoints' (names) and maybe 'skeleton' (limbs counted from 1), 'flip_pairs'
        (counted from 0, or names) and 'sigmas'.
      flip_pairs: in place of the file's; None for those, or else for names that differ in left and
        right alone.
      sigmas: in place of the file's; None for those, or else COCO's where the names are COCO's.

    Raises:
      UserError: a value is not a list of what it should hold, or does not fit the joints.
    """
    _check_lists(category)
    names = tuple(str(name) for name in category['keypoints'])
    limbs = tuple((a - 1, b - 1) for a, b in category.get('skeleton') or ())
    if flip_pairs is None:
      flip_pairs = category.get('flip_pairs')
    if flip_pairs is None:
      flip_pairs = mirrored_names(names)
    if sigmas is None:
      sigmas = category.get('sigmas') or (COCO_SIGMAS if names == COCO_NAMES else ())
    return cls(names, limbs, _pairs(_indices(pair, names) for pair in flip_pairs),
               tuple(float(value) for value in sigmas))


def _check_lists(category: Mapping[str, Any]) -> None:
  """Raises UserError unless the keys of a category are lists of names, pairs and numbers."""
  for key, what, good in (
      ('keypoints', 'of names', lambda item: isinstance(item, str | int)),
      ('skeleton', 'of pairs of joints, counted from 1', _is_pair_of(int)),
      ('flip_pairs', 'of pairs of joints', _is_pair_of(int | str)),
      ('sigmas', 'of numbers', lambda item: isinstance(item, int | float))):
    value = category.get(key)
    if value is not None and not (isinstance(value, list | tuple) and all(map(good, value))):
      raise UserError(f'category {category.get("name")!r}: {key}={str(value)[:80]} must be a list '
                      f'{what}')


def _is_pair_of(kind: Any) -> Callable[[Any], bool]:
  return lambda item: (isinstance(item, list | tuple) and len(item) == 2
                       and all(isinstance(joint, kind) for joint in item))


def mirrored_names(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
  """Returns the pairs of joints whose names differ in left and right alone."""
  known = {name.lower(): index for index, name in enumerate(names)}
  pairs = []
  for index, name in enumerate(names):
    other = known.get(_exchange_sides(name.lower()))
    if other is not None and index < other:
      pairs.append((index, other))
  return tuple(pairs)


_SIDES = {'left': 'right', 'right': 'left', 'l': 'r', 'r': 'l'}


def _exchange_sides(name: str) -> str:
  # 'left' anywhere, 'l' only as a word of its own: 'l_knee', 'knee-l'.
  return re.sub(r'left|right|(?<![a-z])[lr](?![a-z])', lambda match: _SIDES[match[0]], name)


def _indices(pair: Sequence[Any], names: Sequence[str]) -> tuple[int, ...]:
  unknown = [joint for joint in pair if isinstance(joint, str) and joint not in names]
  if unknown:
    raise UserError(f'flip_pairs: {unknown[0]!r} is no joint; they are {", ".join(names)}')
  return tuple(names.index(joint) if isinstance(joint, str) else int(joint) for joint in pair)


def _pairs(pairs: Any) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(int(joint) for joint in pair) for pair in pairs)


COCO = Skeleton(COCO_NAMES, (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    mirrored_names(COCO_NAMES), COCO_SIGMAS)
