"""What all benchmarks share: arguments, interleaved timing, provenance, result files."""
import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

RESULTS = pathlib.Path(__file__).resolve().parent / 'results'
# Packages whose versions change what is measured.
PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'opencv-python-headless', 'pillow', 'simplejpeg')


def run(
    module: str, description: str, measure: Callable[[argparse.Namespace], Any],
    show: Callable[[Any], None], *, options: Mapping[str, Mapping[str, Any]],
    small: Mapping[str, Any], argv: Sequence[str] | None = None) -> None:
  """Runs one benchmark from the command line.

  Args:
    module: its name, such as 'benchmarks.cpu.conv'.
    description: its docstring.
    measure: arguments -> results that JSON can hold.
    show: prints the results.
    options: flag -> keywords of `add_argument`.
    small: values of the options for `--small`, which tests use.
    argv: the command line; None is that of the process.
  """
  parser = argparse.ArgumentParser(
      prog=f'python -m {module}', description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  for flag, keywords in options.items():
    parser.add_argument(flag, **keywords)
  parser.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write a result file')
  parser.add_argument('--write', action='store_true',
                      help='write the result file that the tables of README and docs are made from')
  parser.add_argument('--small', action='store_true',
                      help='tiny settings that only show that the benchmark runs')
  argv = sys.argv[1:] if argv is None else list(argv)
  args = parser.parse_args(argv)
  if args.small:
    if args.write:
      parser.error('--write needs the full settings, without --small')
    for name, value in small.items():
      setattr(args, name, value)
  record = provenance(module, argv)
  record['results'] = measure(args)
  show(record['results'])
  name = f'{module.rpartition(".")[2]}.json'
  for path in (args.json, RESULTS / name if args.write else None):
    if path:
      path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n')
      print(f'wrote {path}')


def provenance(module: str, argv: Sequence[str]) -> dict[str, Any]:
  """Returns what a result file says about its origin: command, date, versions, processor."""
  versions = {'python': platform.python_version()}
  for package in ('fcajax', *PACKAGES):
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  arguments = [word for i, word in enumerate(argv)
               if word not in ('--write', '--json') and argv[max(i - 1, 0)] != '--json']
  return {
      'command': shlex.join(['python', '-m', module, *arguments]),
      'date': datetime.date.today().isoformat(),
      'versions': versions,
      'processor': processor(),
  }


def processor() -> str:
  """Returns the accelerator's name, or the CPU's with the number of cores this process may use."""
  if 'jax' in sys.modules:
    import jax
    device = jax.devices()[0]
    if device.platform != 'cpu':
      return f'{len(jax.devices())} x {device.device_kind}'
  name = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.is_file():
    names = [line.partition(':')[2].strip() for line in info.read_text().splitlines()
             if line.startswith('model name')]
    name = names[0] if names else name
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return f'{name}, {cores} core{"s" if cores != 1 else ""}'


def interleaved(
    functions: Mapping[Any, Callable], repeats: int, *args: Any,
    budget: float = float('inf')) -> dict[Any, np.ndarray]:
  """Times JAX functions that take turns, after one call of each that compiles it.

  Taking turns keeps a slow minute of the machine from favouring one of them.

  Args:
    functions: name -> function of `args`.
    repeats: number of rounds.
    *args: what the functions are called with.
    budget: no further round starts after this many seconds.

  Returns:
    Name -> `[rounds, 2]`: wall seconds, and CPU seconds of all threads together.
  """
  import jax
  for function in functions.values():
    jax.block_until_ready(function(*args))
  times = {name: [] for name in functions}
  end = time.perf_counter() + budget
  for round_number in range(repeats):
    if round_number and time.perf_counter() > end:
      break
    for name, function in functions.items():
      wall, cpu = time.perf_counter(), time.process_time()
      jax.block_until_ready(function(*args))
      times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  return {name: np.array(values) for name, values in times.items()}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = '') -> str:
  """Formats a Markdown table; `align` holds 'l' or 'r' for each column, left by default."""
  align = align.ljust(len(header), 'l')
  lines = ['| ' + ' | '.join(header) + ' |',
           '|' + ''.join('---:|' if letter == 'r' else '---|' for letter in align)]
  return '\n'.join([*lines, *('| ' + ' | '.join(row) + ' |' for row in rows)])
