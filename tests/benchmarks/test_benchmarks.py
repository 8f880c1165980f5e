"""Every benchmark runs with `--small` and writes what a result file must hold."""
import importlib
import json
import pathlib

import pytest

from benchmarks import common

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
SCRIPTS = sorted(path.relative_to(FOLDER.parent) for kind in ('cpu', 'accelerator')
                 for path in (FOLDER / kind).glob('[!_]*.py'))


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_small_run_writes_a_result_file(script, tmp_path, capsys):
  module = importlib.import_module('.'.join(script.with_suffix('').parts))
  path = tmp_path / 'result.json'
  module.main(['--small', '--json', str(path)])
  record = json.loads(path.read_text())
  assert record['results']
  assert record['command'].startswith(f'python -m {module.__name__} --small')
  assert record['versions']['jax'] and record['processor'] and record['date']
  assert '|---' in capsys.readouterr().out


def test_small_results_are_never_written_for_the_docs():
  module = importlib.import_module('benchmarks.cpu.fourier')
  before = sorted(common.RESULTS.iterdir())
  with pytest.raises(SystemExit):
    module.main(['--small', '--write'])
  assert sorted(common.RESULTS.iterdir()) == before


def test_every_benchmark_says_how_it_is_started():
  for script in SCRIPTS:
    module = '.'.join(script.with_suffix('').parts)
    assert f'python -m {module}' in (FOLDER.parent / script).read_text(), script
