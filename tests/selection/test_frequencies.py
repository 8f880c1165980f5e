"""Names and files of frequency sets."""
import json

import numpy as np
import pytest

from fcajax.selection.frequencies import frequency_indices, portable_frequencies


@pytest.mark.parametrize('name', ['top', 'bot', 'low'])
def test_published_orders(facts, name):
  order = [tuple(pair) for pair in facts['fcanet'][f'{name}_order']]
  for k in range(1, len(order) + 1):
    assert frequency_indices(f'{name}{k}') == tuple(order[:k])
  with pytest.raises(ValueError, match=f"holds {len(order)}; use '{name}{len(order)}' or fewer"):
    frequency_indices(f'{name}{len(order) + 1}')


def test_top_order_sorts_the_published_accuracies(facts):
  accuracy = np.array(facts['fcanet']['single_frequency_top1_percent_7x7'])
  order = np.stack(np.unravel_index(np.argsort(-accuracy, axis=None), (7, 7)), axis=1)
  assert frequency_indices(order) == frequency_indices('top49')
  assert frequency_indices(order[::-1]) == frequency_indices('bot49')


def test_frequency_indices_of_other_kinds():
  assert frequency_indices('all') == tuple((u, v) for u in range(7) for v in range(7))
  assert len(frequency_indices('all', grid=(3, 5))) == 15
  assert frequency_indices([[0, 1], (6, 6)]) == ((0, 1), (6, 6))
  assert frequency_indices(np.array([[0, 1]])) == ((0, 1),)
  assert frequency_indices([(9, 1)], grid=(10, 2)) == ((9, 1),)


@pytest.mark.parametrize('wrong, message', [
    ('top0', "frequencies='top0' is unknown; use 'topK'"),
    ('best8', 'unknown'),
    ('', 'unknown'),
    ([], r'no list of \(u, v\) index pairs'),
    ([1, 2], r'no list of \(u, v\)'),
    ([(0.5, 1)], r'no list of \(u, v\)'),
    (None, r'no list of \(u, v\)'),
    ([(0, 0), (7, 1)], r'\(7, 1\) lies outside the 7 x 7 grid; u is in 0..6 and v in 0..6'),
    ([(0, -1)], 'outside'),
])
def test_bad_frequencies(wrong, message):
  with pytest.raises(ValueError, match=message):
    frequency_indices(wrong)


def test_published_orders_need_their_grid():
  with pytest.raises(ValueError, match='published for the 7 x 7 grid, not 8 x 8'):
    frequency_indices('top4', grid=(8, 8))


def test_frequencies_from_a_search(tmp_path):
  ranked = [[0, 0], [3, 1], [6, 6], [0, 2]]
  path = tmp_path / 'search.json'
  path.write_text(json.dumps({'grid': [7, 7], 'ranked': ranked, 'selected': ranked[:2]}))
  assert frequency_indices(str(path)) == ((0, 0), (3, 1))
  assert frequency_indices(path) == ((0, 0), (3, 1))
  assert frequency_indices(f'{path}:top3') == ((0, 0), (3, 1), (6, 6))
  for name, message in ((f'{path}:top5', 'ranks 4; use top1 to top4'),
                        (f'{path}:top0', 'ranks 4'),
                        (f'{path}:best', 'unknown')):
    with pytest.raises(ValueError, match=message):
      frequency_indices(name)
  with pytest.raises(ValueError, match=r'searched on the grid \[7, 7\]'):
    frequency_indices(path, grid=(8, 8))


@pytest.mark.parametrize('content, message', [
    (None, 'cannot read the frequency file .*search.json: No such file'),
    ('{"ranked": [[0, 0', 'is no JSON'),
    ('[1, 2]', "needs the keys 'grid' and 'selected'"),
    ('{"grid": [7, 7]}', "needs the keys 'grid' and 'selected'"),
    ('{"grid": [7, 7], "selected": [[0, 7]]}', "'selected' of .*lies outside"),
    ('{"grid": [7, 7], "selected": 3}', r'no list of \(u, v\)'),
])
def test_bad_search_files(tmp_path, content, message):
  path = tmp_path / 'search.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(ValueError, match=message):
    frequency_indices(str(path))


def test_a_stored_network_needs_no_file(tmp_path):
  path = tmp_path / 'search.json'
  path.write_text(json.dumps({'grid': [2, 2], 'ranked': [[0, 1], [0, 0]], 'selected': [[0, 1]]}))
  assert portable_frequencies(f'{path}:top2', (2, 2)) == ((0, 1), (0, 0))
  assert portable_frequencies('top8') == 'top8'
