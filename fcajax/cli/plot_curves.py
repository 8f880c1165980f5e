"""`fcajax plot curves RUN...`: the learning curves of several runs in one picture."""
import argparse
import pathlib

from fcajax.analysis import curves
from fcajax.analysis.pictures import COLORS
from fcajax.cli.arguments import add_out
from fcajax.errors import UserError
from fcajax.workdir.metrics_log import read_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('runs', nargs='+', metavar='RUN', help="work directories of 'fcajax train'")
  parser.add_argument('--labels', nargs='+', metavar='TEXT', default=None,
                      help='a name for each run (default: its folder)')
  add_out(parser, 'curves.png')


def run(args: argparse.Namespace) -> None:
  labels = args.labels or [pathlib.Path(name).resolve().name for name in args.runs]
  if len(labels) != len(args.runs):
    raise UserError(f'--labels gives {len(labels)} names for {len(args.runs)} runs; one each')
  if len(set(labels)) < len(labels):
    raise UserError(f'two runs are called {max(labels, key=labels.count)!r}; tell them apart with '
                    '--labels')
  if len(args.runs) > len(COLORS):
    raise UserError(f'{len(args.runs)} runs; one picture holds at most {len(COLORS)}')
  rows = {}
  for label, directory in zip(labels, args.runs):
    rows[label] = read_rows(pathlib.Path(directory))
    if not rows[label]:
      raise UserError(
          f"'{directory}' holds no metrics.jsonl; give a work directory of 'fcajax train'")
  curves.draw_runs(rows, args.out)
  print(f'wrote {args.out}')
