"""Runs that the data, a signal or a damaged file interrupts: nothing that was saved is lost."""
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fcajax import files
from fcajax.analysis import curves
from fcajax.errors import UserError
from fcajax.input_pipeline import CorruptDataError
from fcajax.train import loop
from fcajax.workdir import checkpoints as checkpoint
from fcajax.workdir import layout as workdir
from tests.helpers import tiny

# Evaluations after the steps 3 and 6, a checkpoint with each that is the best.
STEPS = 6


def run(directory, *, data=None, stream=None, **changes):
  """(summary, what it printed)."""
  stream = stream or io.StringIO()
  options = {key: changes.pop(key) for key in ('model', 'resume_with_changes') if key in changes}
  summary = loop.train(
      tiny.make_config(**changes), directory, data or tiny.TinyPipeline(),
      **{'model': tiny.TinyNet(), **options}, stream=stream)
  return summary, stream.getvalue()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = tmp_path_factory.mktemp('finished')
  return directory, run(directory)[0]


@pytest.fixture
def copy(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / 'run')
  return tmp_path / 'run'


def steps(directory):
  return sorted(int(p.name) for p in (directory / 'checkpoints').iterdir() if p.name.isdigit())


def evaluations(directory):
  rows = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return [(row['step'], row['accuracy']) for row in rows if row['split'] == 'evaluation']


class FailingIterator(tiny.TinyIterator):
  """Fails at the batch of the class's `at`."""

  def __next__(self):
    if self.get_state()['position'] >= self.at:
      self.fail()
    return super().__next__()

  def fail(self):
    raise CorruptDataError('64 images in a row')


class Broken(tiny.TinyPipeline):
  """Its training images from a batch on, or its evaluation images, cannot be read."""

  def __init__(self, training_from=None):
    super().__init__()
    self._breaks_evaluation = training_from is None
    if training_from is not None:
      self.iterator_class = type('Iterator', (FailingIterator,), {'at': training_from})
    self.seen = []

  def corrupt_files(self):
    return self.seen

  def evaluation_batches(self):
    for i, batch in enumerate(super().evaluation_batches()):
      if self._breaks_evaluation and i == 1:
        self.seen.append('bad.jpg')
        raise CorruptDataError('40 of 40 images')
      yield batch


@pytest.mark.parametrize('training_from, saved', [(None, 3), (5, 5)])
def test_data_that_fails_costs_no_step(tmp_path, finished, training_from, saved):
  stream = io.StringIO()
  data = Broken(training_from)
  with pytest.raises(CorruptDataError):
    run(tmp_path, data=data, stream=stream)
  assert f'a checkpoint of step {saved} is saved' in stream.getvalue()
  assert steps(tmp_path)[-1] == saved
  summary, out = run(tmp_path)
  assert f'after step {saved}/6' in out
  assert evaluations(tmp_path) == evaluations(finished[0])
  assert summary['best'] == finished[1]['best'] and summary['loss'] == finished[1]['loss']
  # What was skipped in the first session is still counted.
  assert summary['corrupt_files']['names'] == data.seen


@pytest.mark.parametrize('at', [3, 6])
def test_a_stop_during_an_evaluation_leaves_it_for_later(tmp_path, finished, at):
  class Slow(tiny.TinyPipeline):
    passes = 0

    def evaluation_batches(self):
      self.passes += 1
      for batch in super().evaluation_batches():
        if self.passes == at // 3:
          os.kill(os.getpid(), signal.SIGTERM)
        yield batch

  summary, out = run(tmp_path, data=Slow())
  assert summary['stopped_by'] == signal.SIGTERM and not summary['finished']
  assert f'stopped by SIGTERM after step {at}/6' in out and steps(tmp_path)[-1] == at
  assert not json.loads((tmp_path / 'summary.json').read_text())['finished']
  summary, _ = run(tmp_path)
  assert evaluations(tmp_path) == evaluations(finished[0])
  assert summary['finished'] and summary['best'] == finished[1]['best']
  # The checkpoint that was saved without metrics has them now, so the best one is found.
  best, expected = (checkpoint.restore_variables(path) for path in (tmp_path, finished[0]))
  np.testing.assert_array_equal(best['params']['head']['kernel'],
                                expected['params']['head']['kernel'])


def test_a_run_that_is_past_its_end_and_was_never_evaluated(tmp_path):
  changes = {'checkpoint.every_steps': 2, 'eval_every_epochs': 100.}
  data = Broken(5)
  with pytest.raises(CorruptDataError):
    run(tmp_path, data=data, **changes)
  summary, _ = run(tmp_path, num_steps=4, resume_with_changes=True, **changes)
  assert summary['finished'] and summary['best']['step'] == 5


@pytest.mark.parametrize('metadata', ['there', 'missing'])
def test_other_classes_are_refused_on_resuming(copy, metadata):
  data = tiny.TinyPipeline()
  if metadata == 'missing':
    (copy / 'metadata.json').unlink()
  data.class_names = ['class 0', 'class 2', 'class 1']
  with pytest.raises(UserError, match=r'trained on 3 classes \(class 1, class 2 from number 1 on'):
    run(copy, data=data, num_steps=7, resume_with_changes=True)
  run(copy)
  run(copy, num_steps=7, resume_with_changes=True)
  assert checkpoint.read_metadata(copy)['class_names'] == ['class 0', 'class 1', 'class 2']


def test_workers_that_a_signal_ends_with_the_run_are_no_error(tmp_path):
  waiting = threading.Event()

  class Stream(io.StringIO):
    def write(self, text):
      if 'step 3/6' in text:
        waiting.set()
      return super().write(text)

  class Killed(FailingIterator):
    """SIGTERM to the whole group, while the loop waits for the fourth batch."""
    at = 3

    def fail(self):
      assert waiting.wait(120)
      time.sleep(0.5)
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.5)
      raise RuntimeError('a worker process was terminated')

  data = tiny.TinyPipeline()
  data.iterator_class = Killed
  summary, out = run(tmp_path, data=data, stream=Stream(), eval_every_epochs=100.)
  assert summary['stopped_by'] == signal.SIGTERM and 'an error' not in out
  assert 'while stopping: RuntimeError: a worker process was terminated' in out
  assert 'stopped by SIGTERM after step 3/6; a checkpoint is saved' in out
  assert steps(tmp_path)[-1] == 3
  assert run(tmp_path, eval_every_epochs=100.)[0]['finished']


def test_only_this_very_run_is_finished(copy):
  with pytest.raises(UserError, match='seed: 0 there, 5 now'):
    run(copy, seed=5)
  shutil.rmtree(copy / 'checkpoints')
  assert workdir.finished_summary(copy, workdir.plain(tiny.make_config())) == {}
  summary, out = run(copy, seed=5, num_steps=4)
  assert 'is finished' not in out and summary['steps'] == 4


def test_a_damaged_checkpoint_names_the_way_back(copy):
  newest, older = copy / 'checkpoints' / '6', copy / 'checkpoints' / '3'
  assert older.is_dir()
  for part in ('state/_METADATA', 'run/metadata'):
    kept = (newest / part).read_bytes()
    (newest / part).unlink()
    with pytest.raises(UserError, match=r'checkpoints/6 cannot be read.*of step 3'):
      run(copy, num_steps=7, resume_with_changes=True)
    (newest / part).write_bytes(kept)
  for path in (newest / 'state' / 'd').iterdir():
    path.write_bytes(path.read_bytes()[:10])
  with pytest.raises(UserError, match=r'checkpoints/6 cannot be read.*move that folder away'):
    checkpoint.restore_variables(copy, 'latest')
  shutil.rmtree(newest)
  assert 'after step 3/7' in run(copy, num_steps=7, resume_with_changes=True)[1]


@pytest.mark.parametrize('content', ['', '[]', '{"finished": true}', '\xff'])
def test_a_damaged_summary_is_made_again(copy, finished, content):
  (copy / 'summary.json').write_bytes(content.encode('latin-1'))
  summary, _ = run(copy)
  assert summary['finished'] and summary['best'] == finished[1]['best']
  assert evaluations(copy) == evaluations(finished[0])


def test_damaged_metrics_keep_the_other_rows(copy):
  path = copy / 'metrics.jsonl'
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(lines[0] + b'{"step": \xff\n[1]\n' + b''.join(lines[1:]))
  run(copy, num_steps=7, resume_with_changes=True)
  assert path.read_bytes().splitlines(keepends=True)[:len(lines)] == lines


def test_a_directory_without_its_config_is_refused(copy):
  (copy / 'config.json').unlink()
  with pytest.raises(UserError, match=r'config\.json is missing.*\n.*--resume_with_changes'):
    run(copy)
  assert run(copy, resume_with_changes=True)[0]['finished']


def test_a_checkpoint_that_was_never_finished_owns_nothing(tmp_path):
  (tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp-0').mkdir(parents=True)
  files.write_json(tmp_path / 'config.json', {'seed': 9})
  assert workdir.check_owner(tmp_path, {'seed': 1}) == []


def test_what_cannot_be_drawn_does_not_undo_the_run(tmp_path, monkeypatch):
  data = tiny.TinyPipeline()
  data.class_names = [r'$\frac{$', 'b', 'c']
  assert 'pictures' not in run(tmp_path / 'formula', data=data)[1]

  def fail(*unused):
    raise ValueError('no font')

  monkeypatch.setattr(curves, 'draw_run', fail)
  summary, out = run(tmp_path / 'run')
  assert summary['finished'] and 'the pictures are not complete: ValueError: no font' in out
  assert json.loads((tmp_path / 'run' / 'summary.json').read_text()) == summary


def test_two_runs_do_not_share_a_directory(tmp_path):
  holder = subprocess.Popen(
      [sys.executable, '-c', 'import filelock, sys; lock = filelock.FileLock(sys.argv[1]); '
       'lock.acquire(); print("held", flush=True); sys.stdin.read()', tmp_path / workdir.LOCK_FILE],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  try:
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(UserError, match='another run is going on in'):
      run(tmp_path)
  finally:
    holder.communicate('')
  with workdir.lock(tmp_path):
    child = subprocess.Popen(['sleep', '60'], close_fds=False)
  try:
    assert run(tmp_path)[0]['finished']
  finally:
    child.kill()
    child.wait()


@pytest.mark.parametrize('freeze, message', [
    ('haed', 'finds no parameter; did you mean head'), ('.', 'every parameter')])
def test_what_freezes_nothing_or_everything_is_refused(tmp_path, freeze, message):
  with pytest.raises(UserError, match=message):
    run(tmp_path, freeze=freeze)
  assert '(27 of them frozen)' not in run(tmp_path / 'a', num_steps=1)[1]
  assert '(216 of them frozen)' in run(tmp_path / 'b', num_steps=1, freeze='conv')[1]
