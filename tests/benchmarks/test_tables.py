"""The tables of README.md and docs/ say what the result files say."""
import json

import pytest

from benchmarks import tables
from benchmarks.common import RESULTS

FILES = sorted(RESULTS.glob('*.json'))


def test_pages_hold_what_was_measured():
  assert tables.stale_pages() == [], 'run: python -m benchmarks.tables --write'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_result_files_say_where_they_come_from(path):
  record = json.loads(path.read_text())
  assert record['command'].startswith('python ')
  assert record['date'] and record['processor'] and record['versions']['fcajax']
  assert record['results']


def test_another_result_makes_a_page_stale(tmp_path, monkeypatch):
  for path in FILES:
    (tmp_path / path.name).write_text(path.read_text())
  record = json.loads((tmp_path / 'conv.json').read_text())
  record['results']['steps'][0]['lowerings']['auto']['wall_seconds'] = 123.45
  (tmp_path / 'conv.json').write_text(json.dumps(record))
  monkeypatch.setattr(tables, 'RESULTS', tmp_path)
  assert tables.stale_pages() == ['README.md']


@pytest.mark.parametrize('page, message', [
    ('<!-- table a -->\n<!-- end -->\n', "made for it are \\['a', 'b'\\]"),
    ('<!-- table a -->\n<!-- end -->\n<!-- table b -->\n', 'table b has no <!-- end -->'),
    ('<!-- table a -->\n<!-- table a -->\n<!-- end -->\n', 'the page marks'),
])
def test_marks_that_are_missing_are_named(page, message):
  with pytest.raises(ValueError, match=message):
    tables.fill(page, {'a': lambda: 'A', 'b': lambda: 'B'})
