"""`fcajax plot filters`: the DCT filters of the grid, the chosen ones framed."""
import argparse

from fcajax.analysis import dct_filters
from fcajax.cli.arguments import add_out, positive_int
from fcajax.cli.settings import parse_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      '--frequencies', default='top16',
      help="the ones to frame: 'top16', 'low8', 'bot4', 'all', a search.json or a list of pairs, "
           "'[(0,0),(1,1)]' (default top16)")
  parser.add_argument(
      '--size', type=positive_int, default=28,
      help='side of the filters in positions (default 28, that of stage 2 at 224 pixels)')
  add_out(parser, 'dct_filters.png')


def run(args: argparse.Namespace) -> None:
  text = args.frequencies
  # A list of pairs comes as text; names and files are no literals.
  frequencies = parse_value(text) if text.lstrip().startswith(('[', '(')) else text
  dct_filters.draw(frequencies, args.out, args.size)
  print(f'wrote {args.out}')
