"""The `fcajax` command: list, info, predict, convert, export, plot, select.

Each subcommand lives in a module with `add_arguments(parser)` and `run(args) -> int`; only the
module of the command that is called gets imported: `fcajax list` does not load matplotlib.
"""
import argparse
import difflib
import importlib
import sys

COMMANDS = {
    'list': ('fcajax.models.listing', 'names of the models'),
    'info': ('fcajax.analysis.info', 'parameters, multiply-adds and activations of a model'),
    'predict': ('fcajax.predict', 'top classes of images, from a work directory or weights file'),
    'convert': ('fcajax.weights.convert', 'PyTorch weights to a safetensors file'),
    'export': ('fcajax.weights.export', 'a trained model as one file: safetensors or StableHLO'),
    'plot': ('fcajax.analysis.plot', 'filters, spectra, attention, search and gate heat maps'),
    'select': ('fcajax.analysis.select', "a gate's heat map to a static coefficient subset"),
}


def positive_int(text):
  """An argparse type: a whole number from 1 on."""
  try:
    value = int(text)
  except ValueError:
    value = 0
  if value < 1:
    raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
  return value


def build_parser(command=None):
  """Returns the parser; the arguments of `command` alone are filled in."""
  parser = argparse.ArgumentParser(prog='fcajax', description='Frequency-domain vision in JAX.')
  parser.add_argument(
      '--traceback', action='store_true', help='show where in the code an error was raised')
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
  for name, (module, text) in COMMANDS.items():
    # The description of a command that was not called is never shown, so its module stays unloaded.
    subparser = subparsers.add_parser(name, help=text, description=text)
    if name == command:
      importlib.import_module(module).add_arguments(subparser)
  return parser


def main(argv=None):
  """Runs one command; a user's error is one line on stderr and exit status 2."""
  argv = sys.argv[1:] if argv is None else argv
  command = next((word for word in argv if not word.startswith('-')), None)
  if command is not None and command not in COMMANDS:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ''
    print(f"fcajax: unknown command '{command}'{hint} Commands: {', '.join(COMMANDS)}",
          file=sys.stderr)
    return 2
  args = build_parser(command).parse_args(argv)
  try:
    return importlib.import_module(COMMANDS[command][0]).run(args) or 0
  except BrokenPipeError:  # `fcajax list | head`
    return 0
  except (ValueError, OSError) as error:
    if args.traceback:
      raise
    print(f'fcajax {command}: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main())
