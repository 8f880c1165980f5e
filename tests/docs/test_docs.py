"""README, docs and notebook say what is true: their code runs, their links and commands exist."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from fcajax.cli import config_flags
from fcajax.cli import main as cli
from fcajax.models.registry import list_models, option_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
NOTEBOOKS = sorted((ROOT / 'colab').glob('*.ipynb'))


def run_python(source, tmp_path):
  script = tmp_path / 'blocks.py'
  script.write_text(source)
  env = dict(os.environ, PYTHONPATH=str(ROOT), MPLBACKEND='agg', XLA_FLAGS='')
  result = subprocess.run(
      [sys.executable, str(script)], cwd=ROOT, env=env, capture_output=True, text=True,
      timeout=600, check=False)
  assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


def test_readme_code_runs(tmp_path):
  blocks = re.findall(r'```python\n(.*?)```', PAGES[0].read_text(), re.DOTALL)
  assert blocks
  run_python('\n'.join(blocks), tmp_path)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path, tmp_path):
  cells = json.loads(path.read_text())['cells']
  sources = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
  lines = '\n'.join(sources).splitlines()
  run_python('\n'.join(line for line in lines if not line.startswith(('%', '!'))), tmp_path)


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
  text = page.read_text()
  targets = re.findall(r'\]\(([^)#\s]+)', text) + re.findall(r'src="([^"]+)"', text)
  for target in targets:
    if '://' not in target:
      assert (page.parent / target).exists(), f'{page.name} links to {target}'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_commands_name_what_exists(page):
  """Every `fcajax COMMAND`, config, module and benchmark that a page names is there."""
  text = page.read_text()
  for command, kind in re.findall(r'(?:^ *|`)fcajax ([a-z]+)(?: ([a-z-]+))?', text, re.MULTILINE):
    assert command in cli.COMMANDS, f'{page.name}: fcajax {command}'
    entry, _ = cli.COMMANDS[command]
    assert not isinstance(entry, dict) or kind in entry, f'{page.name}: fcajax {command} {kind}'
  for name in re.findall(r'--config[ =]([a-z_0-9]+)(?![\w./])', text):
    assert name in config_flags.NAMES, f'{page.name}: --config {name}'
  for name in re.findall(r'\b((?:configs|benchmarks)/[a-z_0-9]+\.py)', text):
    assert (ROOT / name).is_file(), f'{page.name}: {name}'
  for module in re.findall(r'python -m ([a-z_.]+)', text):
    path = ROOT / module.replace('.', '/')
    assert path.with_suffix('.py').is_file() or (path / '__main__.py').is_file(), (
        f'{page.name}: {module}')


@pytest.fixture(scope='module')
def config_keys():
  """Every key of a config that is shipped, and the options of every model as keys of `model`."""
  known = {f'model.{option}' for name in list_models() for option in option_names(name)}
  for name in config_flags.NAMES:
    known.update(config_flags.keys(config_flags.load(config_flags.find(name))))
  return known


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_keys_that_a_page_names_are_in_a_config(page, config_keys):
  text = page.read_text()
  sections = {key.partition('.')[0] for key in config_keys if '.' in key}
  named = set(re.findall(r'\bconfig\.([a-z][\w.]*\w)', text))
  named |= {key for key in re.findall(r'`([a-z]+\.\w+)(?:=[^`]*)?`', text)
            if key.partition('.')[0] in sections}
  files = ('json', '.jsonl', '.md', '.png', '.py')
  named = {key for key in named if not key.endswith(files)}
  assert named <= config_keys, f'{page.name}: {sorted(named - config_keys)}'


def test_make_targets_of_the_readme_exist():
  makefile = (ROOT / 'Makefile').read_text()
  for target in re.findall(r'^make ([a-z]+)', PAGES[0].read_text(), re.MULTILINE):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_ci_runs_the_readme_test_command():
  lines = [shlex.split(line) for line in (ROOT / '.ci' / 'run').read_text().splitlines()
           if line.startswith('exec ')]
  assert lines == [['exec', 'make', 'test']]
