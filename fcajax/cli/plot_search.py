"""`fcajax plot search RESULT`: accuracy of each single frequency, as in FcaNet's figure 4."""
import argparse
import pathlib

from fcajax.search import plot, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      'result', metavar='RESULT', help='a search.json or the work directory of a search')
  parser.add_argument(
      '--out', default=None, metavar='FILE',
      help='picture to write (default: search.png beside the result)')


def run(args: argparse.Namespace) -> None:
  path = pathlib.Path(args.result)
  result = report.load_report(path)
  folder = path if path.is_dir() else path.parent
  out = pathlib.Path(args.out) if args.out else folder / 'search.png'
  plot.draw(result, out)
  if 'statement' in result:
    print(report.as_table(result))
  print(f'wrote {out}')
