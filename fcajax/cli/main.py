"""The `fcajax` command: finds the module of a command, runs it, and prints the user's errors.

A command is a module with `add_arguments(parser)` and `run(args) -> exit status or None`. Only the
module of the command that is called gets imported, so that `fcajax --help` loads no JAX.
"""
import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from fcajax import __version__
from fcajax.errors import UserError, did_you_mean

_PLOTS = {
    'filters': ('fcajax.cli.plot_filters', 'the DCT filters of a grid, the chosen ones framed'),
    'spectrum': ('fcajax.cli.plot_spectrum', "the DCT spectrum of a network's feature maps"),
    'attention': (
        'fcajax.cli.plot_attention', 'gate values of the attention layers, by class and stage'),
    'search': ('fcajax.cli.plot_search', 'the heat map of a frequency search'),
    'receptive-field': (
        'fcajax.cli.plot_receptive_field', 'the part of the image that an output depends on'),
    'coefficients': ('fcajax.cli.plot_coefficients', 'the block-DCT coefficients of an image'),
    'curves': ('fcajax.cli.plot_curves', 'the learning curves of several runs'),
    'gate': ('fcajax.cli.plot_gate', 'how often a trained gate opens each DCT coefficient'),
}
COMMANDS = {
    'train': ('fcajax.cli.train', 'train a model, or search for frequencies, as a config says'),
    'list': ('fcajax.cli.list_models', 'names of the models'),
    'info': ('fcajax.cli.info', 'parameters, multiply-adds and activations of a model'),
    'predict': (
        'fcajax.cli.predict', 'classes, objects or keypoints in images, by a trained model'),
    'convert': ('fcajax.cli.convert', 'PyTorch weights to a safetensors file'),
    'export': ('fcajax.cli.export', 'a trained model as one file: safetensors or StableHLO'),
    'plot': (_PLOTS, 'pictures: ' + ', '.join(_PLOTS)),
    'select': ('fcajax.cli.select', "a gate's heat map to a static coefficient subset"),
    'prepare': ('fcajax.cli.prepare', 'a TFDS data set, so that training needs no TensorFlow'),
    'statistics': (
        'fcajax.cli.statistics', 'mean and standard deviation of the inputs over a training set'),
}

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None, program: str | None = None) -> int:
  """Runs one command and returns its exit status.

  A `UserError` is one line on stderr and status 2; with `--traceback` it is raised. Any other error
  is raised. Ctrl-C is one line and status 130.

  Args:
    argv: the words of the command line; None for those of this process.
    program: the name that messages start with; None for 'fcajax COMMAND'.
  """
  argv = sys.argv[1:] if argv is None else argv
  words = [word for word in argv if word != '--traceback']
  command, entry, text, rest = _find(words)
  program = program or command
  try:
    status = _call(program, entry, text, rest)
    sys.stdout.flush()
    return status
  except UserError as error:
    if len(words) < len(argv):
      raise
    print(f'{program}: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt as error:
    print('; '.join([f'{program}: interrupted', *map(str, error.args)]), file=sys.stderr)
    return _INTERRUPTED
  except BrokenPipeError:
    # The reader of the output is gone, as in `fcajax list | head`. Python flushes stdout once more
    # when it exits, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE


def _find(words: Sequence[str]) -> tuple[str, Any, str, list[str]]:
  """Returns the command that `words` start with: its name, module or table, description, rest."""
  name, entry, text = 'fcajax', COMMANDS, 'Frequency-domain vision in JAX.'
  words = list(words)
  while isinstance(entry, dict) and words and words[0] in entry:
    entry, text = entry[words[0]]
    name = f'{name} {words.pop(0)}'
  return name, entry, text, words


def _call(program: str, entry: Any, text: str, words: list[str]) -> int:
  if isinstance(entry, dict):
    return _explain(program, entry, text, words)
  module = importlib.import_module(entry)
  if hasattr(module, 'main'):  # `train` has flags of its own
    return module.main(words, program)
  parser = argparse.ArgumentParser(prog=program, description=text)
  module.add_arguments(parser)
  return module.run(parser.parse_args(words)) or 0


def _explain(program: str, commands: dict[str, Any], text: str, words: list[str]) -> int:
  """Handles a command line without a command: prints help or version, or refuses it."""
  if words and not words[0].startswith('-'):
    raise UserError(f"unknown command '{words[0]}'; {did_you_mean(words[0], commands)}")
  parser = argparse.ArgumentParser(prog=program, description=text)
  parser.add_argument('--version', action='version', version=f'fcajax {__version__}')
  parser.add_argument(
      '--traceback', action='store_true', help='show where in the code an error was raised')
  subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
  for name, (_, description) in commands.items():
    subparsers.add_parser(name, help=description, add_help=False)
  parser.parse_args(words)
  return parser.error('options of a command stand behind its name')
