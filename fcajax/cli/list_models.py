"""`fcajax list [PATTERN]`: the names that `create_model` takes."""
import argparse

from fcajax.errors import UserError
from fcajax.models.registry import list_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      'pattern', nargs='?', default='*', help="shell pattern, for example 'fca_*' (default: all)")


def run(args: argparse.Namespace) -> None:
  names = list_models(args.pattern)
  if not names:
    raise UserError(f"no model matches '{args.pattern}'; 'fcajax list' shows all of them")
  print('\n'.join(names))
