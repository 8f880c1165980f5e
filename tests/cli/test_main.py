"""How the command starts and ends: what it loads, its exit statuses, interruption, broken pipes."""
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import fcajax
from fcajax.cli import main as cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}


def python(*arguments, **options):
  return subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, text=True, timeout=120,
                        capture_output=True, check=False, **options)


@pytest.mark.parametrize('statement', [
    'import fcajax', "cli.main(['--help'])", "cli.main(['plot', '--help'])",
    "cli.main(['train', '--help'])", "cli.main(['predcit'])"])
def test_import_and_help_load_neither_jax_nor_numpy(statement):
  done = python('-c', f'''
import sys
import fcajax.cli.main as cli
try:
  {statement}
except SystemExit:
  pass
print([name for name in ('jax', 'numpy', 'flax', 'matplotlib') if name in sys.modules])
''')
  # Training's flags are of ml_collections, which loads NumPy if it finds it.
  allowed = "['numpy']" if 'train' in statement else '[]'
  assert done.stdout.splitlines()[-1] in ('[]', allowed), done.stdout + done.stderr


def test_python_m_fcajax_and_the_version():
  done = python('-m', 'fcajax', '--version')
  assert (done.returncode, done.stdout) == (0, f'fcajax {fcajax.__version__}\n')


def test_every_command_has_a_module_with_its_arguments():
  def modules(commands):
    for entry, _ in commands.values():
      yield from modules(entry) if isinstance(entry, dict) else (entry,)
  for module in modules(cli.COMMANDS):
    assert (ROOT / f'{module.replace(".", "/")}.py').is_file(), module


@pytest.mark.parametrize('words, message', [
    ([], 'usage: fcajax [-h]'),
    (['plot'], 'usage: fcajax plot [-h]'),
    (['list', '--size', '3'], 'usage: fcajax list [-h] [pattern]'),
    (['plot', 'filters', '--size'], 'usage: fcajax plot filters [-h]'),
])
def test_wrong_arguments_show_the_usage_of_the_command(words, message, capsys):
  with pytest.raises(SystemExit, match='2'):
    cli.main(words)
  assert capsys.readouterr().err.startswith(message)


def test_only_errors_for_the_user_are_one_line(monkeypatch, capsys):
  from fcajax.cli import list_models
  assert cli.main(['list', 'vgg*']) == 2
  assert capsys.readouterr().err == (
      "fcajax list: no model matches 'vgg*'; 'fcajax list' shows all of them\n")
  with pytest.raises(ValueError, match='vgg'):
    cli.main(['--traceback', 'list', 'vgg*'])

  def bug(args):
    raise ValueError('of our own')
  monkeypatch.setattr(list_models, 'run', bug)
  with pytest.raises(ValueError, match='of our own'):
    cli.main(['list'])


def test_ctrl_c_is_one_line_also_while_importing(tmp_path):
  (tmp_path / 'jax').mkdir()
  (tmp_path / 'jax' / '__init__.py').write_text(
      'import time\nprint("importing", flush=True)\ntime.sleep(60)\n')
  environment = ENVIRONMENT | {'PYTHONPATH': f'{tmp_path}:{ROOT}'}
  process = subprocess.Popen(
      [sys.executable, '-m', 'fcajax', 'list'], env=environment, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  assert process.stdout.readline() == 'importing\n'
  process.send_signal(signal.SIGINT)
  _, error = process.communicate(timeout=60)
  assert (process.returncode, error) == (130, 'fcajax list: interrupted\n')


def test_a_broken_pipe_is_quiet():
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run([sys.executable, '-m', 'fcajax', 'list'], env=ENVIRONMENT, stdout=write,
                        stderr=subprocess.PIPE, text=True, timeout=120, check=False)
  os.close(write)
  assert (done.returncode, done.stderr) == (141, '')
