"""Arguments that several commands share."""
import argparse
from typing import Any

_MODEL = "a work directory, a .safetensors file or a name of 'fcajax list' (random weights)"


def positive_int(text: str) -> int:
  """Parses a whole number from 1 on, as the type of an argument."""
  try:
    value = int(text)
  except ValueError:
    value = 0
  if value < 1:
    raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
  return value


class _ImageSize(argparse.Action):
  """Stores one side, or height and width, as `(height, width)`."""

  def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
               values: Any, option_string: str | None = None) -> None:
    if len(values) > 2:
      parser.error(f'argument {option_string} {" ".join(map(str, values))}: give one side, or '
                   'height and width')
    setattr(namespace, self.dest, (values[0], values[-1]))


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
  """Adds MODEL, or MODEL..., to a command that draws what networks do."""
  if several:
    parser.add_argument('models', nargs='+', metavar='MODEL', help=f'each {_MODEL}')
  else:
    parser.add_argument('model', metavar='MODEL', help=_MODEL)


def add_trained_model(parser: argparse.ArgumentParser) -> None:
  """Adds a MODEL that must have weights."""
  parser.add_argument(
      'model', metavar='MODEL', help="a work directory of 'fcajax train' or a .safetensors file")


def add_images(parser: argparse.ArgumentParser, default: str | None = None) -> None:
  """Adds --images; it is required unless `default` says in words what happens without it."""
  parser.add_argument(
      '--images', nargs='+', metavar='PATH', required=default is None,
      help='image files or folders, which are searched recursively'
           + (f' (default: {default})' if default else ''))


def add_image_size(parser: argparse.ArgumentParser, default: str | None = None) -> None:
  """Adds --image-size, which is parsed to `(height, width)` or None."""
  default = default or ('that of the weights, else what the network is made for: 224, or 32, 448, '
                        '896')
  parser.add_argument(
      '--image-size', type=positive_int, nargs='+', default=None, metavar='SIZE',
      action=_ImageSize,
      help=f'side of the image in pixels, or height and width (default: {default})')


def add_batch_size(parser: argparse.ArgumentParser, default: int) -> None:
  """Adds --batch-size."""
  parser.add_argument('--batch-size', type=positive_int, default=default,
                      help=f'images at a time (default {default})')


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
  """Adds --out, the picture to write."""
  parser.add_argument('--out', default=default, metavar='FILE',
                      help=f'picture to write (default {default})')
