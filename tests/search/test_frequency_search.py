"""The search: ranking, statistics, training together, resuming, and what it refuses."""
import functools
import itertools
import json

import jax
import numpy as np
import pytest
from scipy import stats

from fcajax.configs import frequency_search as config_file
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing
from fcajax.search import report as search_report
from fcajax.search import run as frequency_search
from fcajax.search import scoring
from fcajax.search.checks import _overlap, _parse_split
from fcajax.search.fine_tuning import FineTuning
from fcajax.search.settings import SearchSettings
from fcajax.selection.frequencies import frequency_indices
from fcajax.tasks.base import Metric
from fcajax.tasks.classification import Classification
from fcajax.train import optimizer
from fcajax.train.train_step import make_train_step

SIDE, CLASSES, BATCH = 16, 3, 6


class Data:
  """Coloured noise in three classes; counts how often the training stream was opened."""

  def __init__(self, train=60, held_out=30, batch=BATCH):
    self.class_names = ['red', 'green', 'blue']
    self.num_classes, self.num_train, self.num_evaluation = CLASSES, train, held_out
    self.preprocessing = Preprocessing(image_size=SIDE, resize_size=SIDE)
    self.device_augment, self.train_folder = None, ''
    self.opened = 0
    self._batch = batch

  def _images(self, seed, count):
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    images = random.integers(0, 190, (count, SIDE, SIDE, 3))
    images[np.arange(count), ..., labels] += 60
    return images.astype(np.uint8), labels

  def train_iterator(self):
    self.opened += 1
    for i in itertools.count():
      images, labels = self._images(i, self._batch)
      yield {'image': images, 'label': labels}

  def evaluation_batches(self):
    images, labels = self._images(99_999, self.num_evaluation)
    mask = np.ones(len(labels), np.float32)
    mask[-1] = 0
    yield {'image': images, 'label': labels, 'mask': mask}

  def corrupt_files(self):
    return []


NETWORK = {'stage_sizes': (1,), 'width': 8, 'stage_strides': (1,)}


def searched(**overrides):
  return create_model('fca_resnet20', CLASSES, reduction=4, **NETWORK, **overrides)


def small_tuning(batching, devices, steps=3):
  config = config_file.get_config('smoke')
  config.label_smoothing, config.dtype = 0.1, 'float32'
  return FineTuning(
      model=searched(frequencies=((0, 0),)), task=Classification(config, Data()),
      optimizer=optimizer.make_optimizer(config.optimizer),
      schedule=lambda step: 0.05 * (1 - step / steps), steps=steps, batching=batching,
      devices=devices)


@functools.cache
def _drawn(model):
  image = np.zeros((1, SIDE, SIDE, 3), np.float32)
  return jax.jit(functools.partial(model.init, train=False))(jax.random.key(7), image)


def random_base():
  return jax.tree.map(np.asarray, _drawn(create_model('resnet20', CLASSES, **NETWORK)))


SAMPLE = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
FREQUENCIES = [[(0, 0)], [(0, 1)], [(3, 2)]]


def test_published_accuracies_give_the_published_orders(facts):
  published = facts['fcanet']
  accuracy = published['single_frequency_top1_percent_7x7']
  top = [list(pair) for pair in search_report.rank(accuracy)]
  bottom = [list(pair) for pair in search_report.rank(accuracy, lowest=True)]
  assert top == published['top_order']
  assert bottom == published['bot_order']
  assert tuple(map(tuple, top[:32])) == frequency_indices('top32')
  assert tuple(map(tuple, bottom[:32])) == frequency_indices('bot32')


def test_equal_accuracies_keep_the_order_of_the_grid():
  assert search_report.rank([[1, 2], [2, 1]]) == [(0, 1), (1, 0), (0, 0), (1, 1)]
  assert search_report.rank([[1, 2], [2, 1]], lowest=True) == [(0, 0), (1, 1), (0, 1), (1, 0)]
  with pytest.raises(ValueError, match='finite'):
    search_report.rank([[1, np.nan]])


def test_noise_agrees_with_scipy_and_ignores_shifts_of_a_seed():
  random = np.random.default_rng(0)
  accuracy = 60 + random.normal(0, 1, (4, 10)) + np.arange(10) * 0.4
  noise = search_report.frequency_noise(accuracy)
  shifted = search_report.frequency_noise(accuracy + np.array([[0], [5], [-3], [1]]))
  assert noise['f'] == pytest.approx(shifted['f'])
  assert noise['p'] == pytest.approx(stats.f.sf(noise['f'], *noise['degrees']))
  centred = accuracy - accuracy.mean(1, keepdims=True)
  residual = centred - centred.mean(0)
  assert noise['noise_std'] == pytest.approx(np.sqrt((residual**2).sum() / 27))
  assert search_report.frequency_noise(accuracy[:1]) is None


def test_the_statement_tells_noise_from_difference():
  random = np.random.default_rng(1)
  noise = 60 + random.normal(0, 1, (3, 49))
  assert 'within noise' in search_report.statement(noise, (7, 7))
  assert 'more than noise' in search_report.statement(noise + np.arange(49), (7, 7))
  assert 'One seed' in search_report.statement(noise[:1], (7, 7))


def leaves(tree):
  return {jax.tree_util.keystr(path): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_runs_trained_together_equal_separate_runs():
  """Three frequencies times two seeds: one program on two devices, then one run after another."""
  scores, trained = {}, {}
  for batching, devices in (('vmap', jax.devices()[:2]), ('loop', jax.devices()[:1])):
    tuning = small_tuning(batching, devices)
    states = scoring.initial_states(tuning, random_base(), [0, 1], SAMPLE)
    runs = scoring.fine_tune(tuning, states, FREQUENCIES, Data(), SAMPLE)
    trained[batching] = leaves(runs.variables())
    scores[batching] = scoring.held_out_accuracy(tuning, runs, Data())
  for name, leaf in trained['vmap'].items():
    assert leaf.shape[:2] == (3, 2)
    np.testing.assert_allclose(leaf, trained['loop'][name], rtol=2e-4, atol=2e-5, err_msg=name)
  assert max(np.ptp(leaf, axis=0).max() for leaf in trained['vmap'].values()) > 1e-3
  np.testing.assert_allclose(scores['vmap'], scores['loop'], atol=100 / 29 + 1e-6)
  assert scores['vmap'].shape == (2, 3)

  # The same by the ordinary step of a network built with that frequency.
  step = jax.jit(make_train_step(
      searched(frequencies=((3, 2),)), tuning.task, tuning.optimizer, tuning.schedule,
      total_steps=tuning.steps))
  state = jax.tree.map(lambda leaf: leaf[1], states)
  for batch in itertools.islice(Data().train_iterator(), 1, 2 * tuning.steps, 2):
    state, _ = step(state, batch)
  for name, leaf in leaves(state.variables()).items():
    np.testing.assert_allclose(
        trained['vmap'][name][2, 1], leaf, rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_base_of_another_architecture_is_refused():
  base = random_base()
  base['params']['stage1']['block0']['conv1'].pop('kernel')
  tuning = small_tuning('loop', None)
  with pytest.raises(ValueError, match=r'conv1/kernel \(3, 3, 8, 8\) is missing in the base'):
    scoring.initial_states(tuning, base, [0], SAMPLE)
  shapes = jax.eval_shape(functools.partial(tuning.model.init, train=False), jax.random.key(0),
                          SAMPLE)
  other = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  with pytest.raises(ValueError, match=r'attention.* does not exist in the model'):
    scoring.initial_states(tuning, other, [0], SAMPLE)


def small_config(**search):
  config = config_file.get_config('imagenette64_cpu,smoke')
  with config.unlocked():
    config.model.update(NETWORK, reduction=4)
    config.search.update(grid=(2, 3), parallel=2, seeds=2, num_steps=2, top_k=(1, 2), **search)
  config.batch_size = config.eval_batch_size = BATCH
  config.data.image_size = SIDE
  return config


@pytest.fixture
def base_file(tmp_path):
  from fcajax.weights import save_safetensors
  path = tmp_path / 'base.safetensors'
  variables = random_base()
  save_safetensors(path, {'params': variables['params'], 'batch_stats': variables['batch_stats']}, {
      'model': {'name': 'resnet20', 'num_classes': CLASSES,
                'overrides': NETWORK},
      'class_names': ['red', 'green', 'blue'],
      'preprocessing': Preprocessing(image_size=SIDE).to_dict()})
  return str(path)


class Stop(Exception):
  pass


def test_an_interrupted_search_goes_on_with_the_next_group(
    tmp_path, base_file, monkeypatch, capsys):
  config = small_config(base=base_file, batching='loop', learning_rate=0.02)
  groups = []

  def scored(tuning, states, candidates, data, sample):
    groups.append([tuple(map(tuple, c)) for c in candidates])
    if len(groups) == 3:
      raise Stop
    return fine_tune(tuning, states, candidates, data, sample)

  fine_tune = scoring.fine_tune
  monkeypatch.setattr(frequency_search, 'fine_tune', scored)
  with pytest.raises(Stop):
    frequency_search.run(config, tmp_path / 'run', Data())
  partial = json.loads((tmp_path / 'run' / 'search_partial' / 'results.json').read_text())
  assert list(partial['step1']) == ['0,0', '0,1', '0,2', '1,0']
  config.search.parallel = 1
  report = frequency_search.run(config, tmp_path / 'run', Data())
  assert groups[3:5] == [[((1, 1),)], [((1, 2),)]]
  assert len(groups) == 7
  assert partial['step1']['0,2'] == [report['accuracy_by_seed'][s][0][2] for s in range(2)]
  assert 'were scored before' in capsys.readouterr().out

  path = tmp_path / 'run' / 'search.json'
  assert json.loads(path.read_text()) == report
  assert np.shape(report['accuracy']) == np.shape(report['std']) == (2, 3)
  assert frequency_indices(str(path), (2, 3)) == tuple(map(tuple, report['selected']))
  assert frequency_indices(f'{path}:top3', (2, 3)) == tuple(map(tuple, report['ranked'][:3]))
  assert set(report['step2']) == {'1', '2'}
  first, second = (report['step2'][k]['mean'] for k in '12')
  assert len(report['selected']) == (2 if second > first else 1)
  assert (tmp_path / 'run' / 'search.png').stat().st_size > 5000

  config.search.learning_rate = 0.5
  with pytest.raises(ValueError, match=r'search\.learning_rate: 0.02 there, 0.5 now'):
    frequency_search.run(config, tmp_path / 'run', Data())


def test_the_base_is_trained_without_attention_where_none_is_given(tmp_path, monkeypatch):
  config = small_config(batching='loop')
  config.parallelism = 'jit'
  seen = {}

  def train(config, directory, data, stream):
    seen['config'] = config
    return {'stopped_by': 15}

  monkeypatch.setattr('fcajax.train.loop.train', train)
  assert frequency_search.run(config, tmp_path, Data()) == {'stopped_by': 15}
  assert seen['config'].model.attention == 'none'
  assert 'search' not in seen['config']
  assert config.model.get('attention') is None


@pytest.mark.parametrize('change, data, message', [
    ({'data.eval_split': 'validation'}, {}, r"eval_split='validation' is no part of .*train\["),
    ({'data.train_split': 'train[:80%]', 'data.eval_split': 'train[70%:]'}, {},
     r"'train\[70%:\]' overlaps"),
    ({}, {'held_out': 29}, '29 held-out images of 3 classes'),
    ({}, {'train': 5}, 'batch_size=6 is more than the 5 training images'),
    ({'search.base': 'nowhere.safetensors'}, {}, "'nowhere.safetensors' does not exist"),
    ({'search.top_k': (3,)}, {}, r'top_k=\(3,\) in stage1/block0/attention: channels=8'),
    ({'search.grid': (17, 7)}, {}, 'cannot tell all frequencies apart in stage1'),
    ({'search.grid': (9, 9)}, {}, 'cannot tell all frequencies apart in stage2'),
    ({'search.seeds': 0}, {}, 'seeds=0 must be at least 1'),
    ({'search.batching': 'map'}, {}, "batching='map'; use one of"),
    ({'model.attention': 'se'}, {}, 'no option'),
])
def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path, change, data, message):
  config = small_config()
  with config.unlocked():
    config.model.update(stage_sizes=(1, 1), stage_strides=(1, 2))
    config.update_from_flattened_dict(change)
  data = Data(**data)
  with pytest.raises(ValueError, match=message):
    frequency_search.run(config, tmp_path / 'run', data)
  assert not data.opened
  assert not (tmp_path / 'run').exists()


def test_the_config_takes_its_defaults_from_the_settings():
  config = config_file.get_config('imagenet').search
  assert SearchSettings.from_config(config) == SearchSettings(
      seeds=1, parallel=1, top_k=(1, 2, 4, 8, 16, 32))
  with pytest.raises(ValueError, match=r"search\.learnin_rate is unknown; did you mean 'learning"):
    SearchSettings.from_config({'learnin_rate': 0.1})


def test_a_task_whose_best_metric_is_no_average_cannot_be_scored():
  tuning = small_tuning('loop', jax.devices()[:1], steps=1)
  states = scoring.initial_states(tuning, random_base(), [0], SAMPLE)
  runs = scoring.fine_tune(tuning, states, FREQUENCIES[:1], Data(), SAMPLE)
  tuning.task.best = Metric('average_precision')
  with pytest.raises(ValueError, match="best metric 'average_precision' must be an average"):
    scoring.held_out_accuracy(tuning, runs, Data())


def test_a_diverged_run_names_its_frequency():
  tuning = small_tuning('loop', None, steps=2)
  base = jax.tree.map(lambda leaf: leaf * np.nan, random_base())
  states = scoring.initial_states(tuning, base, [0], SAMPLE)
  with pytest.raises(FloatingPointError, match=r'\[\(0, 0\)\].*not finite'):
    scoring.fine_tune(tuning, states, FREQUENCIES[:1], Data(), SAMPLE)


def test_a_folder_of_test_images_is_not_searched_on(tmp_path):
  data = Data()
  data.train_folder = 'photos/Train'
  config = small_config()
  with config.unlocked():
    config.data.source, config.data.root = 'folder', 'photos'
  with pytest.raises(ValueError, match=r"test folder of its own.* set data\.root='photos/Train'"):
    frequency_search.run(config, tmp_path / 'run', data)
  assert not (tmp_path / 'run').exists()


def test_splits_that_share_images_are_recognised():
  def shares(left, right):
    return _overlap(_parse_split(left), _parse_split(right))
  assert shares('train', 'train[90%:]')
  assert shares('train[:81%]', 'train[80%:]')
  assert shares('train[:9001]', 'train[9000:]')
  assert not shares('train[:80%]', 'train[80%:]')
  assert not shares('train[:9000]', 'train[9000:]')


def test_files_that_are_no_result_are_refused(tmp_path):
  with pytest.raises(ValueError, match='no search result at'):
    search_report.load_report(tmp_path)
  (tmp_path / 'search.json').write_text('{"grid": [7,')
  with pytest.raises(ValueError, match='is not JSON'):
    search_report.load_report(tmp_path)
  (tmp_path / 'search.json').write_text('{"grid": [7, 7]}')
  with pytest.raises(ValueError, match=r"has no \['accuracy'"):
    search_report.load_report(tmp_path / 'search.json')
