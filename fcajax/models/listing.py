"""`fcajax list [PATTERN]`: the names that `create_model` takes."""


def add_arguments(parser):
  parser.add_argument(
      'pattern', nargs='?', default='*', help="shell pattern, for example 'fca_*' (default: all)")


def run(args):
  from fcajax.models.registry import list_models
  names = list_models(args.pattern)
  if not names:
    raise ValueError(f"no model matches '{args.pattern}'; 'fcajax list' shows all of them")
  print('\n'.join(names))
  return 0
