"""The task of docs/own_task.md, trained end to end; nothing in fcajax/train knows it."""
import functools
import io
import json
import os
import pathlib
import re
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from fcajax import tasks
from fcajax.errors import UserError
from fcajax.train import loop, parallel
from fcajax.workdir import checkpoints
from tests.helpers import tiny

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'own_task.md'


class TwoLabels(tiny.TinyPipeline):
  """Images of three levels of brightness: the labels say which two thresholds they exceed."""

  def __init__(self):
    super().__init__()
    self._train, self._evaluation = (
        (images, (labels[:, None] > np.arange(2)).astype(np.float32))
        for images, labels in (self._train, self._evaluation))
    self.class_names = ['above 60', 'above 120']

  def evaluation_batches(self):
    images, labels = self._evaluation
    for start in range(0, 48, 16):
      part = slice(start, start + 16)
      real = len(images[part])
      padding = [(0, 16 - real)]
      yield {'image': np.pad(images[part], padding + 3 * [(0, 0)]),
             'label': np.pad(labels[part], padding + [(0, 0)]),
             'mask': (np.arange(16) < real).astype(np.float32)}


@pytest.fixture(scope='module')
def task(tmp_path_factory):
  """The class of the documentation's code, from a file of its own."""
  code = re.search(r'```python\n(.*?)```', DOCS.read_text(), re.DOTALL)[1]
  assert len(code.splitlines()) < 100
  path = tmp_path_factory.mktemp('own') / 'multi_label.py'
  path.write_text(code)
  return tasks.get(f'{path}:MultiLabel')


def run(task, directory, stream=None):
  stream = stream or io.StringIO()
  summary = loop.train(
      tiny.make_config(), directory, TwoLabels(), task=task, model=tiny.TinyNet(), stream=stream)
  return summary, stream.getvalue()


@pytest.fixture(scope='module')
def finished(task, tmp_path_factory):
  directory = tmp_path_factory.mktemp('finished')
  return directory, *run(task, directory)


def variables(directory):
  return checkpoints.restore_variables(directory, 'latest')


def test_metrics_are_those_of_all_images_at_once(finished):
  directory, summary, out = finished
  images, labels = TwoLabels()._evaluation
  logits = tiny.TinyNet(num_classes=2).apply(variables(directory), tiny.normalize(images))
  expected = [average_precision_score(labels[:, i], np.asarray(logits)[:, i]) for i in range(2)]
  np.testing.assert_allclose(summary['mean_average_precision'], np.mean(expected), atol=1e-6)
  np.testing.assert_allclose(summary['average_precision/above 120'], expected[1], atol=1e-6)
  assert 'mAP' in out and 'top-1' not in out and 'accuracy' not in out
  assert summary['task'] == 'multi_label' and 'accuracy' not in summary
  assert (directory / 'learning_curves.png').is_file()
  assert checkpoints.read_metadata(directory)['task'] == 'multi_label'


def test_the_best_checkpoint_is_that_of_the_tasks_own_metric(finished, task):
  directory, summary, _ = finished
  rows = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  evaluations = [(row['mean_average_precision'], row['step'])
                 for row in rows if row['split'] == 'evaluation']
  assert len(evaluations) == 2 and summary['best']['step'] == max(evaluations)[1]
  again, out = run(task, directory)
  assert again == summary and f'mAP {summary["mean_average_precision"]:.1%}' in out


def test_eight_devices_equal_one(finished, task, tmp_path, monkeypatch):
  directory, summary, _ = finished
  monkeypatch.setattr(
      parallel, 'create', functools.partial(parallel.create, devices=jax.devices()[:1]))
  alone, _ = run(task, tmp_path)
  assert (alone['devices'], summary['devices']) == (1, 8)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
               variables(tmp_path), variables(directory))
  assert alone['mean_average_precision'] == pytest.approx(summary['mean_average_precision'])


def test_a_stopped_run_equals_the_uninterrupted_one(finished, task, tmp_path):
  class Stopping(io.StringIO):
    def write(self, text):
      if 'evaluation: ' in text:
        os.kill(os.getpid(), signal.SIGTERM)
      return super().write(text)

  summary, _ = run(task, tmp_path, Stopping())
  assert summary['stopped_by'] == signal.SIGTERM and summary['step'] == 3
  resumed, out = run(task, tmp_path)
  assert 'after step 3/6' in out and resumed['best'] == finished[1]['best']
  jax.tree.map(np.testing.assert_array_equal, variables(tmp_path), variables(finished[0]))


def test_predictions_on_files(finished, task, tmp_path):
  class Opened:
    model, variables = tiny.TinyNet(num_classes=2), variables(finished[0])
    preprocessing, class_names = TwoLabels().preprocessing, ['above 60', 'above 120']

  Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / 'bright.png')
  [prediction] = task.predict(Opened, [tmp_path / 'bright.png'], threshold=0.0)
  assert list(prediction.to_dict()['classes']) == Opened.class_names
  assert prediction.text().startswith('above 60 ')


def test_metadata_never_runs_code(finished):
  with pytest.raises(UserError, match="task 'multi_label', which is not one of classification"):
    tasks.of_metadata(checkpoints.read_metadata(finished[0]))
  assert tasks.of_metadata({'model': {}}) is tasks.get('classification')


@pytest.mark.parametrize('name, message', [
    ('clasification', "unknown: did you mean 'classification'"),
    ('missing.py:Task', 'missing.py of config.task does not exist'),
    ('json:loads', 'has no class loads'),
    ('no_such_module:Task', 'there is no module no_such_module'),
])
def test_tasks_that_do_not_exist(name, message):
  with pytest.raises(UserError, match=message):
    tasks.get(name)
