"""Progress lines, prefetching, the writers and the work directory."""
import io
import json
import time

import numpy as np
import pytest

from fcajax import files
from fcajax.errors import UserError
from fcajax.tasks import samples
from fcajax.tasks.classification import Classification
from fcajax.train import progress
from fcajax.train.prefetch import Prefetcher
from fcajax.workdir import layout as workdir
from fcajax.workdir import metrics_log as writers

SPEED = {'images_per_second': 1234.5, 'seconds_left': 61, 'wait_fraction': 0.25}
SHOWN = {'train_metrics': Classification.train_metrics,
         'eval_metrics': Classification.eval_metrics}


class Terminal(io.StringIO):

  def isatty(self):
    return True


def test_durations():
  assert [progress.duration(s) for s in (0.4, 59, 200, 18_420, 183_600)] == [
      '0s', '59s', '3m20s', '5h07m', '2d03h']


def test_plain_lines_come_every_n_steps():
  out = io.StringIO()
  lines = progress.Progress(total_steps=100, steps_per_epoch=40, every=10, stream=out, **SHOWN)
  for step in (1, 5, 11, 15, 40, 100):
    lines.tick(step)
    lines.train(step, {'loss': 1.5, 'accuracy': 0.25}, **SPEED)
  text = out.getvalue().splitlines()
  assert [line.split()[1] for line in text] == ['1/100', '11/100', '40/100', '100/100']
  assert text[1] == ('step  11/100  epoch 0.3/2.5  loss 1.5000  accuracy 25.0%  1,234 images/s  '
                     '1m01s left  data wait 25%')


def test_a_terminal_has_one_live_line_under_the_lasting_ones():
  out = Terminal()
  lines = progress.Progress(total_steps=100, steps_per_epoch=40, every=10, stream=out, **SHOWN)
  lines.train(1, {'loss': 1.5, 'accuracy': 0.25}, **SPEED)
  lines.train(2, {'loss': 1.25, 'accuracy': 0.25}, **SPEED)
  assert '\n' not in out.getvalue() and out.getvalue().count('\r') == 2
  lines.evaluation(2, {'loss': 1.0, 'accuracy': 0.5, 'top5': 0.75}, seconds=3, best=True)
  shown = out.getvalue().split('\r')[-1]
  assert shown == ('step   2/100  epoch 0.1/2.5  evaluation: loss 1.0000  top-1 50.00%  '
                   'top-5 75.00%  in 3s  best so far\n')


def test_other_processes_print_nothing():
  out = Terminal()
  lines = progress.Progress(total_steps=9, steps_per_epoch=4, every=1, stream=out, quiet=True)
  lines.train(1, {'loss': 1.5, 'accuracy': 0.25}, **SPEED)
  lines.line('something')
  assert out.getvalue() == ''


class Counter:
  """An iterator whose state is how many numbers it has given."""

  def __init__(self, stop=10):
    self.given, self._stop = 0, stop

  def __iter__(self):
    return self

  def __next__(self):
    if self.given == self._stop:
      raise ValueError('image 10 is broken')
    self.given += 1
    return self.given

  def state(self):
    return {'given': self.given}


def test_prefetched_batches_carry_their_own_position():
  counter = Counter()
  batches = Prefetcher(counter, lambda x: 10 * x, get_state=counter.state, depth=3)
  first = batches.get()
  time.sleep(0.1)
  assert counter.given > 2 and first == (10, '{"given": 1}')
  assert batches.get() == (20, '{"given": 2}')
  batches.close()


def test_errors_of_the_data_come_in_their_turn():
  counter = Counter(stop=2)
  batches = Prefetcher(counter, lambda x: x)
  assert [batches.get()[0], batches.get()[0]] == [1, 2]
  with pytest.raises(ValueError, match='image 10 is broken'):
    batches.get()
  batches.close()
  assert [x for x, _ in Prefetcher(iter([1, 2, 3]), lambda x: x)] == [1, 2, 3]


class Output:
  """Stands for an output of the last step."""

  def __init__(self, ready):
    self.is_ready = lambda: ready


@pytest.mark.parametrize('ready', [True, False])
def test_waiting_counts_only_while_the_devices_idle(ready):
  def slow():
    for i in range(2):
      time.sleep(0.2)
      yield i

  batches = Prefetcher(slow(), lambda x: x)
  batches.get(Output(ready))
  assert (batches.wait_seconds > 0.1) == ready
  batches.close()


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
  def write(start, steps):
    writer = writers.MetricWriter(tmp_path, start)
    for step in steps:
      writer.write(step=step, epoch=step / 3, split='train', values={'loss': 1.0 / step})
    writer.close()

  write(0, [1, 2, 3, 4])
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 5, ')
  write(2, [3])
  assert [row['step'] for row in writers.read_rows(tmp_path)] == [1, 2, 3]
  assert writers.read_rows(tmp_path)[0] == {
      'step': 1, 'epoch': 0.3333, 'split': 'train', 'loss': 1.0}
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2


def test_every_row_is_json_whatever_the_metrics(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.write(step=1, epoch=0.0, split='train', values={'loss': float('nan')})
  writer.close()
  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text, parse_constant=pytest.fail)['loss'] is None


def test_config_changes_name_added_and_removed_keys(tmp_path):
  config = workdir.plain({'a': 1, 'b': {'c': (1, 2), 'd': {}}, 'e': None})
  files.write_json(tmp_path / 'config.json', config)
  assert workdir.config_changes(tmp_path, config) == []
  changed = workdir.plain({'a': 1, 'b': {'c': (1, 3)}, 'e': None, 'f': 'x'})
  assert workdir.check_owner(tmp_path, changed) == []
  (tmp_path / 'checkpoints' / '3').mkdir(parents=True)
  expected = [
      '  b.c: [1, 2] there, [1, 3] now', '  b.d: {} there, absent now',
      '  f: absent there, "x" now']
  assert workdir.check_owner(tmp_path, changed, allow_changes=True) == expected
  with pytest.raises(UserError, match='--resume_with_changes'):
    workdir.check_owner(tmp_path, changed)
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(UserError, match='is damaged'):
    workdir.check_owner(tmp_path, changed)


def test_samples_are_few_of_each_class_and_never_padding(tmp_path):
  kept = samples.Samples(['a b', 'c/d', 'e'])
  labels = np.array([0] * 9 + [1, 1, 2])
  batch = {'image': np.zeros((12, 4, 4, 3), np.uint8), 'label': labels,
           'mask': np.array([1.] * 11 + [0.])}
  kept.add(kept.keep(batch), np.eye(3)[labels])
  assert kept.labels == [0] * 6 + [1, 1]
  assert kept.draw(tmp_path) == [tmp_path / 'predictions.png']
  assert sorted(path.name for path in (tmp_path / 'samples').iterdir()) == ['a_b', 'c_d']
  assert samples.find(tmp_path).name == '000.png' and samples.is_trainable(tmp_path)
  assert (tmp_path / 'predictions.png').is_file()
  assert samples.find(tmp_path / 'nowhere') is None


def test_what_is_no_image_is_not_kept(tmp_path):
  kept = samples.Samples(['a', 'b'])
  batch = {'image': np.zeros((2, 4, 4, 24), np.int16), 'label': np.zeros(2, int),
           'mask': np.ones(2)}
  assert kept.keep(batch) is None and kept.draw(tmp_path) == []
  assert not list(tmp_path.iterdir())
