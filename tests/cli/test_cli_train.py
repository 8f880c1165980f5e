"""train.py as a user types it, in processes of its own."""
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = [
    '--config', 'configs/quickstart.py', '--config.batch_size=16', '--config.eval_batch_size=64',
    '--config.num_steps=3', '--config.log_every_steps=1', '--config.optimizer.warmup_epochs=0',
    '--config.data.image_size=16', '--config.data.resize_size=16', '--config.data.crop_padding=0',
    '--config.data.augment=False', '--config.model.frequencies=top1',
    '--config.model.stage_sizes=(1,1,1)']


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
  """One device, quick compilation, and programs that are compiled once for the whole file."""
  return os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
      'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('cache')),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
  }


def call(environment, *arguments, cwd=ROOT, code=0):
  """Runs train.py; returns what it printed after checking its exit status."""
  done = subprocess.run(
      [sys.executable, str(ROOT / 'train.py'), *map(str, arguments)], cwd=cwd, env=environment,
      capture_output=True, text=True, timeout=600, check=False)
  assert done.returncode == code, (done.stdout, done.stderr)
  return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture(scope='module')
def finished(environment, tmp_path_factory):
  """(work directory, output) of a tiny run on the digits."""
  workdir = tmp_path_factory.mktemp('runs') / 'digits'
  return workdir, call(environment, *TINY, '--workdir', workdir)


def printed_commands(output):
  """The commands that a finished run ends with, by what they do."""
  lines = output[output.index('what next:'):].splitlines()[1:]
  return {lines[i].strip(' :'): lines[i + 1].strip() for i in range(0, len(lines), 2)}


def test_the_printed_commands_work(environment, finished):
  workdir, output = finished
  commands = printed_commands(output)

  def run(command, *more):
    return subprocess.run(
        [*shlex.split(command), *more], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=600, check=True).stdout

  image = run(commands['classify images'])
  assert f'{workdir}/samples/' in image and '%' in image
  assert 'evaluation/accuracy' in run(commands['watch the curves'], '--inspect')
  longer = run(commands['train twice as long'])
  assert 'num_steps: 3 there, 6 now' in longer and 'after step 3/6' in longer
  summary = json.loads((workdir / 'summary.json').read_text())
  assert summary['finished'] and summary['steps'] == 6
  folder, = (command for what, command in commands.items() if 'train on a folder' in what)
  small = ['--config.model.name=fca_resnet20', '--config.num_steps=1', '--config.batch_size=999',
           '--config.optimizer.warmup_epochs=0', '--workdir', workdir.parent / 'folder',
           *[argument for argument in TINY if 'size=16' in argument or '.model.' in argument]]
  trained = run(folder, *map(str, small), '--config.batch_size=999')
  assert 'config.batch_size=999 is more than the' in trained and '10 classes (0, 1, 2' in trained


def test_second_run_is_finished(environment, finished):
  workdir, _ = finished
  steps = json.loads((workdir / 'config.json').read_text())['num_steps']
  out = call(environment, *TINY, f'--config.num_steps={steps}', '--workdir', workdir)
  assert f'is finished: {steps} steps' in out and 'what next:' in out


def test_sigterm_saves_and_the_same_command_goes_on(environment, tmp_path):
  arguments = [*TINY, '--config.num_steps=100000', '--config.eval_every_epochs=1000000.0',
               '--workdir', str(tmp_path)]
  process = subprocess.Popen(
      [sys.executable, 'train.py', *arguments], cwd=ROOT, env=environment, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  for line in process.stdout:
    if line.startswith('step'):
      process.send_signal(signal.SIGTERM)
      break
  out, _ = process.communicate(timeout=600)
  assert process.returncode == 128 + signal.SIGTERM, out
  assert 'stopped by SIGTERM after step' in out and 'Traceback' not in out
  step = int(out.split('after step ')[1].split('/')[0])
  assert (tmp_path / 'checkpoints' / str(step)).is_dir()
  assert not json.loads((tmp_path / 'summary.json').read_text())['finished']


def test_run_names_its_directory_and_imports_neither_tensorflow_nor_torch(environment, tmp_path):
  for name in ('tensorflow', 'torch'):
    (tmp_path / f'{name}.py').write_text(f'raise RuntimeError("{name} was imported")')
  environment = environment | {'PYTHONPATH': f'{tmp_path}:{ROOT}'}
  arguments = ['train', '--config=quickstart', *TINY[2:], '--config.num_steps=1']
  done = subprocess.run(
      [sys.executable, '-m', 'fcajax', *arguments], cwd=tmp_path, env=environment,
      capture_output=True, text=True, timeout=600, check=False)
  out = done.stdout
  assert done.returncode == 0, (out, done.stderr)
  workdir, = (tmp_path / 'runs').iterdir()
  assert workdir.name.startswith('quickstart-20') and f'runs/{workdir.name}' in out


def test_without_flags_it_says_how(environment):
  out = call(environment, code=2)
  assert 'fcajax train --config configs/folder.py --config.data.root=DIR' in out
  assert 'quickstart, quickstart_dct' in out and '--workdir' in out


QUICKSTART = ('--config', 'configs/quickstart.py')


@pytest.mark.parametrize('arguments, message', [
    (('--config.seed=1',), '--config is missing'),
    (('--config', 'configs/quikstart.py'), "did you mean 'configs/quickstart.py'"),
    (('--config', 'quikstart'), "there is no config 'quikstart'; did you mean 'quickstart'"),
    (('--config', 'configs/quickstart.py:smke'), "argument 'smke'; did you mean 'smoke'?"),
    ((*QUICKSTART, '--config.optimizer.learning_rte=1'),
     'has no key optimizer.learning_rte; did you mean --config.optimizer.learning_rate'),
    ((*QUICKSTART, '--config.learning_rate=1'),
     'did you mean --config.optimizer.learning_rate'),
    ((*QUICKSTART, '--config.batch_size=many'), "--config.batch_size=many: invalid literal"),
    ((*QUICKSTART, '--workdr=x'), "'workdr'. Did you mean: workdir"),
    ((*QUICKSTART, 'seed=1'), "unexpected argument 'seed=1'"),
])
def test_mistakes_are_one_line_before_jax_is_imported(environment, tmp_path, arguments, message):
  """A JAX that cannot be imported shows that nothing was touched."""
  (tmp_path / 'jax.py').write_text('raise RuntimeError("jax was imported")')
  environment = environment | {'PYTHONPATH': str(tmp_path)}
  out = call(environment, *arguments, code=2)
  assert message in out and 'Traceback' not in out and 'jax was imported' not in out
  assert out.startswith('train.py: ') and len(out.strip().splitlines()) == 1


def test_unknown_model_is_named_before_any_data(environment, tmp_path):
  out = call(environment, '--config', 'configs/folder.py', '--config.data.root=/nowhere',
             '--config.model.name=fca_resnt18', '--workdir', tmp_path, code=2)
  assert "unknown model 'fca_resnt18'" in out and 'fca_resnet18' in out


def test_a_mistake_in_the_data_leaves_no_directory(environment, tmp_path):
  out = call(environment, '--config', 'configs/folder.py', '--config.data.root=/nowhere',
             '--workdir', tmp_path / 'run', code=2)
  assert "data.root='/nowhere' is not a directory" in out and not (tmp_path / 'run').exists()
