"""Data sources of one's own: the examples of docs/data.md, groups, labels, worker processes."""
import pathlib
import re

import jax
import numpy as np
import pytest

from fcajax import input_pipeline
from fcajax.errors import UserError
from fcajax.input_pipeline import ArrayExamples, DataSet, DataSettings, registry
from fcajax.input_pipeline.order import GroupedOrder, Share
from fcajax.input_pipeline.sources.base import ArraySource
from fcajax.preprocessing.spec import Preprocessing
from tests.helpers.folders import assert_same, create, take, write_image

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def examples():
  """The Python blocks of the section of docs/data.md."""
  text = (ROOT / 'docs' / 'data.md').read_text()
  section = text[text.index('## A data source of your own'):]
  return re.findall(r'```python\n(.*?)```', section, re.DOTALL)


@pytest.fixture(scope='module')
def boxes(examples, tmp_path_factory):
  """config.data of the documented source, with 20 images, of which one has a box of no area."""
  root = tmp_path_factory.mktemp('boxes')
  (root / 'boxes.py').write_text(examples[0])
  lines = []
  for i in range(20):
    write_image(root / f'{i}.png', i)
    lines.append(f'{i}.png,{i},10,{0 if i == 7 else 10},20')
  (root / 'boxes.csv').write_text('\n'.join(lines) + '\n')
  return {'source': f'{root / "boxes.py"}:open_boxes', 'root': str(root), 'image_size': 16,
          'max_corrupt_fraction': 0.1}


def test_the_documented_source(boxes):
  pipeline = create(boxes)
  assert (pipeline.num_train, pipeline.num_evaluation) == (18, 2)
  assert pipeline.class_names == ['thing'] and pipeline.preprocessing.image_size == 16
  batches = take(pipeline.train_iterator(), 9)
  assert batches[0]['image'].shape == (4, 16, 16, 3)
  lefts = np.concatenate([batch['box'] for batch in batches])[:, 0]
  assert 0 < (lefts > 0.5).sum() < 36  # some are mirrored, some are not
  assert pipeline.corrupt_files() == ['7.png']
  evaluation, = pipeline.evaluation_batches()
  assert evaluation['mask'].tolist() == [1, 1, 0, 0] and not evaluation['image'][2:].any()


def test_worker_processes_get_a_source_that_is_a_file(boxes):
  expected = take(create(boxes).train_iterator(), 3)
  pipeline = create({**boxes, 'workers': 1})
  iterator = pipeline.train_iterator()
  assert_same(take(iterator, 3), expected)
  iterator.close()


def test_own_sources_have_own_keys(boxes):
  with pytest.raises(UserError, match=r"unknown key data\.crop_area: it is one of .*image_size"):
    create({**boxes, 'crop_area': (0.1, 1)})
  with pytest.raises(UserError, match=r"data\.image_size='big' must be a value such as 64"):
    create({**boxes, 'image_size': 'big'})


@pytest.mark.parametrize('source, message', (
    ('foldr', "did you mean 'folder'"), ('nowhere.py:Source', "'nowhere.py', which does not exist"),
    ('no_such_module:Source', 'module no_such_module'),
    ('fcajax.input_pipeline.registry:fnd', "did you mean 'find'")))
def test_sources_that_are_not_there(source, message):
  with pytest.raises(UserError, match=message):
    create({'source': source})


def test_images_and_labels_from_elsewhere(examples, monkeypatch):
  rows = [(np.full((8, 8, 3), i, np.uint8), i % 2) for i in range(120)]
  scope = {'my_database': lambda root: rows}
  exec(examples[1], scope)
  monkeypatch.setitem(registry.SOURCES, 'database', scope['open_database'])
  pipeline = create({'source': 'database', 'image_size': 8, 'resize_size': 8}, eval_batch_size=50)
  assert (pipeline.num_train, pipeline.num_evaluation) == (20, 100)
  levels = np.concatenate([b['image'][:, 0, 0, 0] for b in pipeline.evaluation_batches()])
  assert levels.tolist() == list(range(100))


class Shapes:
  """Examples of two shapes: group 0 is [2], group 1 is [3]; each holds its index."""

  def __init__(self, groups):
    self.groups = np.array(groups)

  def __len__(self):
    return len(self.groups)

  def name(self, index):
    return str(index)

  def spec(self, group):
    return {'nested': {'x': jax.ShapeDtypeStruct((2 + group,), np.int32)}}

  def load(self, index, out, generator):
    if index == 4:
      raise OSError('gone')
    out['nested']['x'][...] = index + 1


def grouped(process=(0, 1), batch_size=4):
  groups = [0] * 7 + [1] * 10
  data_set = DataSet(Shapes(groups), Shapes(groups), ['a', 'b'], Preprocessing(8))
  settings = DataSettings(max_corrupt_fraction=0.5)
  return input_pipeline.Pipeline(data_set, settings, batch_size=batch_size,
                                 eval_batch_size=batch_size, seed=0, share=Share(*process))


def test_batches_of_one_shape_each():
  pipeline = grouped()
  iterator = pipeline.train_iterator()
  for _ in range(3):
    epoch = take(iterator, 5)  # 2 batches of group 0, 3 of group 1
    for group, count in ((0, 2), (1, 3)):
      chosen = [b['nested']['x'] for b in epoch if b['nested']['x'].shape == (4, 2 + group)]
      assert len(chosen) == count
      seen = set(np.concatenate(chosen)[:, 0].tolist())
      assert seen == ({1, 2, 3, 4, 6, 7} if group == 0 else set(range(8, 18)))
  assert pipeline.corrupt_files() == ['4']
  state = iterator.get_state()
  expected = take(iterator, 4)
  again = grouped().train_iterator()
  again.set_state(state)
  for one, other in zip(take(again, 4), expected):
    np.testing.assert_array_equal(one['nested']['x'], other['nested']['x'])


def test_grouped_evaluation_covers_every_example_once():
  for processes in (1, 2):
    shares = [list(grouped((p, processes)).evaluation_batches()) for p in range(processes)]
    assert {len(share) for share in shares} == {5}
    for parts in zip(*shares):
      assert len({part['nested']['x'].shape for part in parts}) == 1
    rows = [x[mask == 1, 0] for share in shares for batch in share
            for x, mask in [(batch['nested']['x'], batch['mask'])]]
    assert sorted(np.concatenate(rows).tolist()) == [i + 1 for i in range(17) if i != 4]


def test_grouped_processes_share_the_same_batches():
  groups = [0, 1, 1, 0, 1, 1, 1]
  whole = GroupedOrder(groups, 4, 3, Share(0, 1))
  shares = [GroupedOrder(groups, 4, 3, Share(p, 2)) for p in range(2)]
  for batch in range(7):
    expected, parts = whole(batch), [share(batch) for share in shares]
    assert {part.group for part in parts} == {expected.group}
    merged = np.stack([part.indices for part in parts], 1).reshape(-1)
    np.testing.assert_array_equal(merged, expected.indices)


def test_arrays_in_memory():
  arrays = {'x': np.arange(5), 'y': {'z': np.arange(10).reshape(5, 2)}}
  data_set = DataSet(ArrayExamples(arrays), ArrayExamples(arrays), ['a', 'b'], Preprocessing(8))
  pipeline = input_pipeline.Pipeline(data_set, DataSettings(), batch_size=5, eval_batch_size=3,
                                     seed=0, share=Share(0, 1))
  batch = next(pipeline.train_iterator())
  np.testing.assert_array_equal(batch['y']['z'][:, 0], 2 * batch['x'])
  assert [b['mask'].tolist() for b in pipeline.evaluation_batches()] == [[1, 1, 1], [1, 1, 0]]
  with pytest.raises(UserError, match='one entry for each example'):
    ArrayExamples({'x': np.zeros(3), 'y': np.zeros(2)})


@pytest.mark.parametrize('in_memory', (True, False))
def test_labels_of_no_class_are_refused_by_name(monkeypatch, in_memory):
  images = np.zeros((3, 8, 8, 3), np.uint8)
  splits = input_pipeline.classification.Splits(
      ArraySource(images, [0, 1, 0]), ArraySource(images, [0, -1, 1], ['x', 'hidden.png', 'z']),
      ['a', 'b'])
  monkeypatch.setitem(registry.SOURCES, 'hidden', lambda settings, seed:
                      input_pipeline.classification.data_set(splits, settings))
  with pytest.raises(UserError, match=r'label of hidden\.png is -1; labels lie in 0\.\.1'):
    pipeline = create({'source': 'hidden', 'image_size': 8, 'in_memory': in_memory})
    list(pipeline.evaluation_batches())
