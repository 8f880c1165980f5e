"""Which of the 192 block-DCT coefficients a network reads, and how they are normalised.

A name is a number of coefficients and a letter. S (squares): published, except 12S. T (triangles):
never published, so the rule is this project's. D (learned): read off a trained gate's heat map;
'24D' alone is the published one.
"""
import dataclasses
import difflib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fcajax.errors import NotFoundError, UserError
from fcajax.ops import color
from fcajax.ops.block_dct import zigzag_order
from fcajax.ops.dct_filters import strided_dct
from fcajax.typing import AnyArray, Array, Float, Int, Num

COMPONENTS = ('y', 'cb', 'cr')
CHROMA = ('full', 'half')

# Coefficients in each row of the 8 x 8 block, luma and chroma. 12S keeps the 4 : 1 : 1 of 6S and
# 24S; its luma is the 8-coefficient near-square that 48S has in chroma, its chroma DC and (0, 1).
_SQUARES = {
    '6S': ((2, 2), (1,)),
    '12S': ((3, 3, 2), (2,)),
    '24S': ((4, 4, 4, 4), (2, 2)),
    '32S': ((5, 5, 5, 4, 3), (3, 2)),
    '48S': ((6, 6, 6, 6, 4, 4), (3, 3, 2)),
    '64S': ((7, 7, 6, 6, 6, 6, 6), (3, 3, 2, 2)),
}
_LEARNED = {
    '24D': ((0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 24, 32), (0, 1, 3, 8, 24)),
}
SUBSETS = ('192', *_SQUARES, *(name[:-1] + 'T' for name in _SQUARES), *_LEARNED)


@dataclasses.dataclass(frozen=True)
class CoefficientSubset:
  """Row-major indices 8u + v to read of each component, in the order of the channels.

  Raises:
    UserError: an index outside 0..63, one listed twice, or no index at all.
  """

  y: Sequence[int]
  cb: Sequence[int]
  cr: Sequence[int]

  def __post_init__(self):
    for name in COMPONENTS:
      values = tuple(int(i) for i in getattr(self, name))
      bad = [i for i in values if not 0 <= i < 64]
      if bad:
        raise UserError(f'coefficients {bad} of {name} are outside 0..63 (8u + v); remove them')
      repeated = sorted({i for i in values if values.count(i) > 1})
      if repeated:
        raise UserError(f'coefficients {repeated} of {name} are listed twice; list each once')
      object.__setattr__(self, name, values)
    if not len(self):
      raise UserError('the subset is empty; give at least one coefficient of y, cb or cr')

  def __len__(self):
    return len(self.y) + len(self.cb) + len(self.cr)

  @property
  def components(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """The index tuples of Y, Cb and Cr, as `block_dct(indices=...)` takes them."""
    return self.y, self.cb, self.cr

  @property
  def flat(self) -> Int[np.ndarray, ' k']:
    """Index of each coefficient among all 192."""
    return np.array([64 * c + i for c, chosen in enumerate(self.components) for i in chosen])

  @property
  def spec(self) -> str:
    """The subset in full as one string, 'y:0,1,8,9;cb:0;cr:0', which needs no file to be read."""
    return ';'.join(f'{name}:{",".join(map(str, getattr(self, name)))}' for name in COMPONENTS)


def _square(name):
  luma, chroma = (tuple(8 * u + v for u, width in enumerate(rows) for v in range(width))
                  for rows in _SQUARES[name])
  return CoefficientSubset(luma, chroma, chroma)


def _triangle(name):
  """As many of each component as the square of that size, the first ones in zigzag order."""
  counts = (len(component) for component in _square(name[:-1] + 'S').components)
  return CoefficientSubset(*(sorted(zigzag_order()[:count].tolist()) for count in counts))


def _parse(text):
  parts = {}
  for part in text.split(';'):
    name, _, values = part.partition(':')
    name = name.strip()
    if name not in COMPONENTS or name in parts or not re.fullmatch(r'[\d\s,]*', values):
      raise UserError(f'coefficients={text!r} is not of the form y:0,1,8,9;cb:0;cr:0')
    parts[name] = [int(i) for i in values.split(',') if i.strip()]
  return parts


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the JSON object in a file.

  Raises:
    NotFoundError: the file does not exist.
    UserError: it cannot be read, or holds no JSON object.
  """
  try:
    content = json.loads(pathlib.Path(path).read_text())
  except FileNotFoundError:
    raise NotFoundError(f'there is no file {path}; give the path of a JSON file that '
                            '`fcajax plot gate`, `fcajax select` or the statistics command '
                            'wrote') from None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}; give a JSON file') from error
  except ValueError as error:  # damaged JSON, or bytes that are not UTF-8
    raise UserError(f'{path} is not JSON ({error}); write or copy it again') from error
  if not isinstance(content, dict):
    raise UserError(f'{path} holds a {type(content).__name__}; a JSON object is expected')
  return content


def coefficient_subset(spec: Any) -> CoefficientSubset:
  """Returns the coefficients behind a name, a list or a file.

  Args:
    spec: one of
      '192' (all), '6S', '12S', '24S', '32S', '48S', '64S' (squares), the same numbers with T
      (upper-left triangles), '24D' (the published learned subset);
      '24D:heat_map.json' (any number): the coefficients that a gate opened most often, from the
      file that `fcajax plot gate` writes;
      'subset.json': a file with lists y, cb and cr, as `fcajax select` writes;
      'y:0,1,8,9;cb:0;cr:0', a mapping {'y': [...], 'cb': [...], 'cr': [...]}, or a
      `CoefficientSubset`, which is returned as it is.
  Raises:
    UserError: unknown name, indices beyond 63 or repeated, a file of another content.
    FileNotFoundError: the file does not exist.
  """
  if isinstance(spec, CoefficientSubset):
    return spec
  if isinstance(spec, Mapping):
    unknown = sorted(set(spec) - set(COMPONENTS))
    if unknown:
      raise UserError(f'unknown components {unknown} in coefficients; use y, cb and cr')
    return CoefficientSubset(*(tuple(spec.get(name, ())) for name in COMPONENTS))
  name = str(spec)
  if name == '192':
    return CoefficientSubset(*(tuple(range(64)),) * 3)
  if name in _SQUARES:
    return _square(name)
  if name[:-1] + 'S' in _SQUARES and name.endswith('T'):
    return _triangle(name)
  if name in _LEARNED:
    luma, chroma = _LEARNED[name]
    return CoefficientSubset(luma, chroma, chroma)
  learned = re.fullmatch(r'(\d+)D:(.+)', name)
  if learned:
    return select_from_heat_map(read_json(learned[2]), int(learned[1]))
  if name.endswith('.json'):
    content = read_json(name)
    if not set(content) & set(COMPONENTS):
      raise UserError(f'{name} has no lists y, cb and cr; for a heat map write 24D:{name}')
    return coefficient_subset({key: content[key] for key in COMPONENTS if key in content})
  if re.match(r'\s*(y|cb|cr)\s*:', name):
    return coefficient_subset(_parse(name))
  if re.fullmatch(r'\d+D', name):
    raise UserError(f'coefficients={name!r} was never published; name the heat map of a trained '
                     f'gate, {name}:heat_map.json, or use 24D')
  near = difflib.get_close_matches(name, SUBSETS, 3, 0.5)
  hint = f'. Did you mean {", ".join(near)}?' if near else ''
  raise UserError(f'coefficients={name!r} is unknown; use one of {", ".join(SUBSETS)}, a .json '
                   f'file or y:0,1;cb:0;cr:0{hint}')


def portable_spec(spec: Any) -> str:
  """Returns what to store with a network: a published name, or anything else in full.

  Args:
    spec: as `coefficient_subset` takes it.
  Returns:
    A string that gives the same subset on every machine.
  Raises:
    As `coefficient_subset`.
  """
  return spec if isinstance(spec, str) and spec in SUBSETS else coefficient_subset(spec).spec


def select_from_heat_map(heat_map: Mapping[str, Any], count: int) -> CoefficientSubset:
  """Returns the `count` coefficients that a gate opened most often, over all three components.

  Equal fractions go to the lower frequency (zigzag order), then to Y before Cb before Cr.

  Args:
    heat_map: {'coefficients': what the gate saw, 'open_fraction': the mean of p(on), one number in
      0..1 each}.
    count: how many to take.
  Returns:
    Ascending indices of each component.
  Raises:
    UserError: the two entries disagree in length, a fraction is outside 0..1, or the gate saw
      fewer than `count` coefficients.
  """
  missing = {'coefficients', 'open_fraction'} - set(heat_map)
  if missing:
    raise UserError(f'the heat map has no {sorted(missing)}; write it with `fcajax plot gate`')
  seen = coefficient_subset(heat_map['coefficients'])
  fraction = np.asarray(heat_map['open_fraction'], np.float64)
  if fraction.shape != (len(seen),):
    raise UserError(f'the heat map has {fraction.size} fractions for a gate over {len(seen)} '
                     'coefficients; it belongs to another network')
  if not ((fraction >= 0) & (fraction <= 1)).all():
    raise UserError('a fraction of open gates must lie within 0..1; the heat map is damaged')
  if not 1 <= count <= len(seen):
    raise UserError(f'cannot take {count} coefficients of a gate over {len(seen)}; '
                     f'use 1..{len(seen)}')
  component, index = np.divmod(seen.flat, 64)
  rank = np.argsort(zigzag_order())[index]
  chosen = np.lexsort((component, rank, -fraction))[:count]
  return CoefficientSubset(*(sorted(int(index[i]) for i in chosen if component[i] == c)
                             for c in range(3)))


def published_statistics() -> dict[str, Any]:
  """Returns the published normalisation table: {'mean': 192 numbers, 'std': 192 numbers}.

  Its standard deviations are those of per-image spatial means, not of coefficients, so that
  normalised inputs come out far too large: 23 times in the median of the subset 24S over
  photographs at 448 x 448, 1.9 times for the DC term of Y. Use it only with weights trained with
  it.
  """
  return read_json(pathlib.Path(__file__).parent / 'published_statistics.json')


def coefficient_statistics(
    statistics: str | os.PathLike | Mapping[str, Any], coefficients: Any,
    chroma: str | None = None, image_size: int | Sequence[int] | None = None,
) -> tuple[Float[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
  """Returns the mean and standard deviation of the coefficients that a network reads.

  Args:
    statistics: 'published', the path of a JSON file, or its content: {'coefficients': what it
      covers, 'mean': [...], 'std': [...]} and optionally 'chroma' and 'image_size'.
    coefficients: what the network reads, as `coefficient_subset` takes it.
    chroma: 'full' or 'half', to be compared with the statistics'; None skips the check.
    image_size: int or (height, width) in pixels, compared likewise; None skips the check.
  Raises:
    UserError: statistics of another chroma, size or subset, or of a wrong length, or a standard
      deviation that is not positive.
  """
  if statistics == 'published':
    statistics = published_statistics()
  elif not isinstance(statistics, Mapping):
    statistics = read_json(statistics)
  missing = {'coefficients', 'mean', 'std'} - set(statistics)
  if missing:
    raise UserError(f'the statistics have no {sorted(missing)}; compute them with '
                     '`fcajax statistics`')
  for name, expected in (('chroma', chroma), ('image_size', image_size)):
    found = statistics.get(name)
    if name == 'image_size':
      found, expected = (None if value is None else tuple(np.broadcast_to(value, 2).tolist())
                         for value in (found, expected))
    if found is not None and expected is not None and found != expected:
      raise UserError(f'the statistics are of {name}={found}, the input has {name}={expected}; '
                       'compute them again with `fcajax statistics`')
  covered = coefficient_subset(statistics['coefficients'])
  wanted = coefficient_subset(coefficients)
  tables = [np.asarray(statistics[name], np.float32) for name in ('mean', 'std')]
  for name, table in zip(('mean', 'std'), tables):
    if table.shape != (len(covered),):
      raise UserError(f'{name} has {table.size} values for {len(covered)} coefficients; '
                       'the statistics file is damaged')
  row = {channel: i for i, channel in enumerate(covered.flat.tolist())}
  absent = [channel for channel in wanted.flat.tolist() if channel not in row]
  if absent:
    names = [f'{COMPONENTS[channel // 64]} {channel % 64}' for channel in absent[:5]]
    raise UserError(f'the statistics cover {len(covered)} coefficients but not {names}; compute '
                     'them for this subset, or once for 192, which serves every subset')
  rows = np.array([row[channel] for channel in wanted.flat.tolist()])
  mean, std = (table[rows] for table in tables)
  if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
    raise UserError('means must be finite and standard deviations positive; a coefficient that '
                    'never varies over the data cannot be normalised, leave it out of the subset')
  return mean, std


def normalize_coefficients(
    x: Num[AnyArray, '*batch k'], mean: Num[AnyArray, ' k'], std: Num[AnyArray, ' k'],
) -> Float[Array, '*batch k']:
  """Returns `(x - mean) / std` of each coefficient, float32."""
  return (jnp.asarray(x).astype(jnp.float32) - mean) * (1 / np.asarray(std, np.float32))


def _check_input(height, width, chroma):
  if chroma not in CHROMA:
    raise UserError(f"chroma={chroma!r} is unknown; use 'full' or 'half'")
  unit = 16 if chroma == 'half' else 8
  if height % unit or width % unit:
    raise UserError(f'an image of {height} x {width} does not split into blocks: with '
                     f'chroma={chroma!r} both sides must be multiples of {unit}; resize or crop it')


def rgb_to_coefficients(
    x: Num[AnyArray, 'n h w c'], coefficients: Any = '192', chroma: str = 'full',
) -> Float[Array, 'n rows columns k']:
  """Turns RGB pixels into the selected block-DCT coefficients, not normalised.

  `chroma='full'` is the published input: Cb and Cr of the image enlarged twice and halved again by
  4:2:0 (`color.enlarge_and_halve`), one chroma block a luma block. `chroma='half'` takes true 4:2:0
  blocks of the half-size planes and repeats each 2 x 2 to the luma grid.

  Args:
    x: RGB in 0..255; h and w multiples of 8 (16 for 'half').
    coefficients: as `coefficient_subset` takes it.
    chroma: 'full' or 'half'.
  Returns:
    `[N, H/8, W/8, k]` float32; DC terms are 8 times the block's mean minus 128.
  Raises:
    UserError: sizes that are not whole blocks; unknown subset or chroma.
  """
  subset = coefficient_subset(coefficients)
  _check_input(*x.shape[1:3], chroma)
  if x.shape[-1] != 3:
    raise UserError(f'rgb_to_coefficients needs three channels; got shape {x.shape}. Repeat a '
                     'grey image three times')
  x = jnp.asarray(x)
  parts = []
  if subset.y:
    parts.append(strided_dct(x, 'plain', [subset.y], color.RGB_TO_YCBCR[:1], 8))
  if subset.cb or subset.cr:
    # Cb - 128 and Cr - 128 do not change when R, G and B are shifted together.
    kind, stride = ('enlarged', 8) if chroma == 'full' else ('halved', 16)
    coarse = strided_dct(x, kind, [subset.cb, subset.cr], color.RGB_TO_YCBCR[1:], stride)
    parts.append(_to_luma_grid(coarse, stride))
  return jnp.concatenate(parts, -1)


def _to_luma_grid(x, stride):
  return x if stride == 8 else x.repeat(2, 1).repeat(2, 2)


def planes_to_coefficients(
    luma: Num[AnyArray, 'n h w c'], chroma_planes: Num[AnyArray, 'n2 h2 w2 c2'],
    coefficients: Any = '192', chroma: str = 'full',
) -> Float[Array, 'n rows columns k']:
  """Turns 4:2:0 planes, as a JPEG decoder gives them, into the selected coefficients.

  Args:
    luma: Y in 0..255, `[n, h, w, 1]`.
    chroma_planes: Cb and Cr in 0..255, `[n, h/2, w/2, 2]`.
    coefficients: as `coefficient_subset` takes it.
    chroma: 'full' (enlarged on the device as a decoder would, then as `rgb_to_coefficients`) or
      'half' (the blocks of the planes as they are, repeated 2 x 2).
  Returns:
    `[N, H/8, W/8, k]` float32, not normalised.
  Raises:
    UserError: sizes that are not whole blocks or do not belong together; unknown subset or chroma.
  """
  subset = coefficient_subset(coefficients)
  _, height, width, _ = luma.shape
  _check_input(height, width, chroma)
  if tuple(chroma_planes.shape[1:]) != (height // 2, width // 2, 2) or luma.shape[-1] != 1:
    raise UserError(f'luma {luma.shape} and chroma {chroma_planes.shape} are no 4:2:0 pair; '
                     'expected [N, H, W, 1] and [N, H/2, W/2, 2]')
  luma, chroma_planes = jnp.asarray(luma), jnp.asarray(chroma_planes)
  parts = []
  if subset.y:
    parts.append(strided_dct(luma, 'plain', [subset.y], np.eye(1), 8))
  if subset.cb or subset.cr:
    kind, stride = ('from_half', 4) if chroma == 'full' else ('plain', 8)
    coarse = strided_dct(chroma_planes, kind, [subset.cb, subset.cr], np.eye(2), stride)
    parts.append(_to_luma_grid(coarse, 2 * stride))
  return jnp.concatenate(parts, -1)
