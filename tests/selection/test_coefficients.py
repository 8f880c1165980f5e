"""Coefficient subsets, their normalisation, and the way from pixels to a network's input."""
import json

import numpy as np
import pytest

from fcajax.errors import UserError
from fcajax.ops import color
from fcajax.ops.block_dct import block_dct
from fcajax.selection.coefficients import (
  SUBSETS,
  CoefficientSubset,
  coefficient_statistics,
  coefficient_subset,
  normalize_coefficients,
  planes_to_coefficients,
  portable_spec,
  published_statistics,
  rgb_to_coefficients,
  select_from_heat_map,
)
from tests.helpers.planes import halve


def test_squares_are_the_published_ones(facts):
  published = facts['dct_input']['square_subsets']
  for count, lists in published.items():
    subset = coefficient_subset(f'{count}S')
    assert [list(c) for c in subset.components] == [lists['y'], lists['cb'], lists['cr']]


def test_learned_subset_is_the_published_one(facts):
  lists = facts['dct_input']['learned_subset_24']
  subset = coefficient_subset('24D')
  assert [list(c) for c in subset.components] == [lists['y'], lists['cb'], lists['cr']]


@pytest.mark.parametrize('name', SUBSETS)
def test_every_name(name):
  subset = coefficient_subset(name)
  assert len(subset) == len(set(subset.flat.tolist())) == int(name.rstrip('SDT'))
  assert coefficient_subset(subset.spec) == subset
  assert coefficient_subset(subset) is subset
  assert portable_spec(name) == name
  lists = dict(zip(('y', 'cb', 'cr'), map(list, subset.components)))
  assert coefficient_subset(lists) == subset


def test_twelve_squares_grow_from_six_to_twenty_four():
  six, twelve, more = (set(coefficient_subset(n).flat.tolist()) for n in ('6S', '12S', '24S'))
  assert six < twelve < more
  assert coefficient_subset('12S').spec == 'y:0,1,2,8,9,10,16,17;cb:0,1;cr:0,1'


def test_triangles_hold_the_lowest_diagonals():
  for name in ('24T', '48T', '64T'):
    subset, square = coefficient_subset(name), coefficient_subset(name[:-1] + 'S')
    for chosen, reference in zip(subset.components, square.components):
      assert len(chosen) == len(reference)
      diagonal = lambda i: i // 8 + i % 8  # noqa: E731
      outside = set(range(64)) - set(chosen)
      assert max(map(diagonal, chosen)) <= min(map(diagonal, outside))


def test_flat_numbers_the_192():
  subset = CoefficientSubset((0, 63), (1,), (2,))
  assert subset.flat.tolist() == [0, 63, 65, 130]


@pytest.mark.parametrize('spec, message', [
    ('25S', "coefficients='25S' is unknown.*Did you mean"),
    ('48D', 'never published.*48D:heat_map.json'),
    ('y:0;q:1', 'is not of the form'),
    ('y:0;y:1', 'is not of the form'),
    ('y:0,64;cb:;cr:', r'\[64\] of y are outside 0..63'),
    ({'y': [3, 3]}, r'\[3\] of y are listed twice'),
    ({'y': [-1]}, r'\[-1\] of y are outside'),
    ({'luma': [0]}, r"unknown components \['luma'\]"),
    ({'y': []}, 'the subset is empty'),
])
def test_bad_subsets(spec, message):
  with pytest.raises(ValueError, match=message):
    coefficient_subset(spec)


def _heat_map(fractions, coefficients='6S'):
  return {'coefficients': coefficients, 'open_fraction': fractions, 'images': 10}


def test_selection_from_a_heat_map():
  # 6S: Y 0, 1, 8, 9, Cb 0, Cr 0; equal fractions go to the lower frequency, then to luma.
  heat_map = _heat_map([0.5, 0.2, 1.0, 0.2, 0.5, 0.1])
  assert select_from_heat_map(heat_map, 3).spec == 'y:0,8;cb:0;cr:'
  assert select_from_heat_map(heat_map, 2).spec == 'y:0,8;cb:;cr:'
  assert select_from_heat_map(heat_map, 4).spec == 'y:0,1,8;cb:0;cr:'
  assert select_from_heat_map(heat_map, 6).spec == coefficient_subset('6S').spec


def test_files(tmp_path):
  heat_map = tmp_path / 'heat.json'
  heat_map.write_text(json.dumps(_heat_map([1, 0.9, 0.1, 0.2, 0.8, 0])))
  chosen = coefficient_subset(f'3D:{heat_map}')
  assert chosen.spec == 'y:0,1;cb:0;cr:'
  assert portable_spec(f'3D:{heat_map}') == chosen.spec
  lists = tmp_path / 'subset.json'
  lists.write_text('{"y": [0, 2], "cb": [], "cr": [1], "images": 5}')
  assert coefficient_subset(str(lists)).spec == 'y:0,2;cb:;cr:1'
  with pytest.raises(ValueError, match='has no lists y, cb and cr'):
    coefficient_subset(str(heat_map))
  with pytest.raises(FileNotFoundError, match=r'nothing\.json'):
    coefficient_subset(f'24D:{tmp_path}/nothing.json')
  for damaged in (b'{', b'\x80\x81'):
    (tmp_path / 'bad.json').write_bytes(damaged)
    with pytest.raises(UserError, match='is not JSON'):
      coefficient_subset(str(tmp_path / 'bad.json'))
  (tmp_path / 'folder.json').mkdir()
  with pytest.raises(UserError, match=r'cannot read .*folder\.json: Is a directory'):
    coefficient_subset(str(tmp_path / 'folder.json'))


@pytest.mark.parametrize('heat_map, count, message', [
    (_heat_map([1, 1]), 2, '2 fractions for a gate over 6'),
    (_heat_map([1] * 6), 7, r'cannot take 7.*1\.\.6'),
    (_heat_map([2, 0, 0, 0, 0, 0]), 2, r'within 0\.\.1'),
    (_heat_map([float('nan')] * 6), 2, r'within 0\.\.1'),
    ({'y': [0]}, 1, "has no .*open_fraction"),
])
def test_bad_heat_maps(heat_map, count, message):
  with pytest.raises(ValueError, match=message):
    select_from_heat_map(heat_map, count)


def test_published_table(facts):
  table = facts['dct_input']['legacy_normalisation']
  mean, std = coefficient_statistics('published', '192')
  np.testing.assert_array_equal(mean, np.float32(table['mean']))
  np.testing.assert_array_equal(std, np.float32(table['std']))
  subset = coefficient_subset('24S')
  mean, std = coefficient_statistics('published', '24S', chroma='full')
  np.testing.assert_array_equal(mean, np.float32(table['mean'])[subset.flat])
  assert mean.shape == std.shape == (24,)


def _statistics(coefficients='24S', **entries):
  count = len(coefficient_subset(coefficients))
  return {'coefficients': coefficients, 'mean': list(range(count)), 'std': [2.0] * count,
          'chroma': 'full', 'image_size': 448, **entries}


def test_statistics_of_a_larger_subset_serve_a_smaller_one(tmp_path):
  path = tmp_path / 'statistics.json'
  path.write_text(json.dumps(_statistics()))
  mean, _ = coefficient_statistics(str(path), '6S', 'full', (448, 448))
  assert mean.tolist() == [0, 1, 4, 5, 16, 20]


@pytest.mark.parametrize('statistics, message', [
    (_statistics('6S'), r"cover 6 coefficients but not \['y 2', 'y 3'"),
    (_statistics(chroma='half'), 'of chroma=half, the input has chroma=full'),
    (_statistics(image_size=[64, 448]), r'of image_size=\(64, 448\), the input has'),
    (_statistics(mean=[0.0]), 'mean has 1 values for 24'),
    (_statistics(std=[0.0] * 24), 'deviations positive'),
    ({'mean': []}, 'statistics have no'),
])
def test_bad_statistics(statistics, message):
  with pytest.raises(ValueError, match=message):
    coefficient_statistics(statistics, '24S', 'full', 448)


def test_published_statistics_are_of_the_full_chroma():
  assert published_statistics()['chroma'] == 'full'
  with pytest.raises(ValueError, match='of chroma=full, the input has chroma=half'):
    coefficient_statistics('published', '24S', chroma='half')


def test_normalisation():
  x = np.random.default_rng(0).normal(5, 3, (2, 3, 4, 6)).astype(np.float32)
  mean, std = np.arange(6, dtype=np.float32), np.arange(1, 7, dtype=np.float32)
  np.testing.assert_allclose(normalize_coefficients(x, mean, std), (x - mean) / std, rtol=1e-5)


@pytest.fixture(scope='module')
def image():
  return np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3), np.uint8)


def test_full_chroma_is_the_published_double_image(image):
  """Y of the image; Cb and Cr of the image enlarged twice and encoded as 4:2:0."""
  ycbcr = color.rgb_to_ycbcr(image)
  enlarged = color.double(ycbcr)
  planes = np.concatenate([ycbcr[..., :1], halve(enlarged[..., 1:])], -1)
  expected = block_dct(planes)[..., coefficient_subset('24D').flat]
  np.testing.assert_allclose(rgb_to_coefficients(image, '24D'), expected, atol=2e-3)


def test_half_chroma_repeats_true_blocks(image):
  result = np.asarray(rgb_to_coefficients(image, '192', chroma='half'))
  ycbcr = color.rgb_to_ycbcr(image)
  np.testing.assert_allclose(result[..., :64], block_dct(ycbcr[..., :1]), atol=2e-3)
  blocks = np.asarray(block_dct(halve(ycbcr[..., 1:])))
  for row in range(4):
    for column in range(6):
      np.testing.assert_allclose(
          result[:, row, column, 64:], blocks[:, row // 2, column // 2], atol=2e-3)


@pytest.mark.parametrize('chroma', ['full', 'half'])
def test_planes_and_pixels_agree(image, chroma):
  ycbcr = np.asarray(color.rgb_to_ycbcr(image))
  halves = np.asarray(halve(ycbcr[..., 1:]))
  result = planes_to_coefficients(ycbcr[..., :1], halves, '24S', chroma)
  whole = np.concatenate([ycbcr[..., :1], color.double(halves)], -1)
  if chroma == 'full':
    expected = rgb_to_coefficients(color.ycbcr_to_rgb(whole), '24S', chroma)
  else:
    expected = rgb_to_coefficients(image, '24S', chroma)
  np.testing.assert_allclose(result, expected, atol=2e-3)


def test_luma_alone(image):
  for chroma in ('full', 'half'):
    result = rgb_to_coefficients(image, {'y': [0, 8]}, chroma)
    assert result.shape == (2, 4, 6, 2)


def test_grey_has_no_chroma():
  grey = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 1), np.uint8).repeat(3, -1)
  for chroma in ('full', 'half'):
    assert np.abs(rgb_to_coefficients(grey, '192', chroma)[..., 64:]).max() < 1e-3


@pytest.mark.parametrize('shape, chroma, message', [
    ((1, 20, 16, 3), 'full', '20 x 16 does not split.*multiples of 8'),
    ((1, 24, 16, 3), 'half', '24 x 16 does not split.*multiples of 16'),
    ((1, 16, 16, 3), 'double', "chroma='double' is unknown"),
    ((1, 16, 16, 1), 'full', 'needs three channels'),
])
def test_bad_images(shape, chroma, message):
  with pytest.raises(ValueError, match=message):
    rgb_to_coefficients(np.zeros(shape, np.uint8), '24S', chroma)


def test_bad_planes():
  with pytest.raises(ValueError, match='no 4:2:0 pair'):
    planes_to_coefficients(np.zeros((1, 16, 16, 1)), np.zeros((1, 16, 16, 2)))


def test_picture_of_an_image(tmp_path, image, capsys):
  from PIL import Image

  from fcajax.cli import main as cli
  Image.fromarray(image[0]).save(tmp_path / 'image.png')
  assert cli.main([
      'plot', 'coefficients', str(tmp_path / 'image.png'), '--coefficients', 'y:0,1,8;cb:;cr:0',
      '--image-size', '64', '--chroma', 'half', '--out', str(tmp_path / 'picture.png')]) == 0
  assert '64 x 64 pixels as 8 x 8 blocks of 4 coefficients' in capsys.readouterr().out
  assert (tmp_path / 'picture.png').stat().st_size > 5000
