"""`fcajax info MODEL`: parameters, multiply-adds and activations, by stage."""
import argparse
import dataclasses
import json
from typing import Any

from fcajax.analysis import cost
from fcajax.cli.arguments import add_image_size, positive_int
from fcajax.cli.settings import add_settings, explain_settings, parse_settings
from fcajax.inference import open_model

_COLUMNS = ('stage', 'output', 'parameters', 'MACs', 'DCT', 'Fourier', 'activations')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      'model', metavar='MODEL',
      help="a work directory, a .safetensors file or a name of 'fcajax list'")
  add_image_size(parser)
  parser.add_argument(
      '--input-shape', type=positive_int, nargs=3, default=None, metavar=('H', 'W', 'C'),
      help='shape of what the network reads, instead of deriving it from the image size')
  parser.add_argument(
      '--num-classes', type=positive_int, default=None, help='number of classes (default 1000)')
  add_settings(parser)
  parser.add_argument('--json', action='store_true', help='one JSON object')


def run(args: argparse.Namespace) -> None:
  settings = parse_settings(args.set)
  with explain_settings(args.model, settings):
    loaded = open_model.describe(args.model, args.num_classes, settings)
    shape = tuple(args.input_shape or open_model.input_shape(
        loaded.model,
        open_model.image_size(args.image_size, loaded.model, loaded.preprocessing)))
    counted = cost.count(loaded.model, shape)
  sent = host_bytes(counted.input_shape, loaded.model)
  if args.json:
    print(json.dumps(as_dict(counted, loaded.name, sent)))
  else:
    print(as_table(counted, loaded.name, sent))


def host_bytes(input_shape: tuple[int, ...], model: Any) -> dict[str, int]:
  """Returns the bytes of one image on its way to the device, by host format.

  The formats are those of `config.data.dct_on` and `.dct_bits`. A network on coefficients reads one
  position for each block of 8 x 8 pixels. {} if the network reads neither coefficients nor RGB.
  """
  rows, columns, channels = input_shape
  if not hasattr(model, 'coefficients'):
    return {'rgb': 3 * rows * columns} if channels == 3 else {}
  pixels, values = 64 * rows * columns, rows * columns * channels
  return {'rgb': 3 * pixels, '420': 3 * pixels // 2, 'int16': 2 * values, 'int8': values}


def as_dict(counted: cost.Cost, name: str, sent: dict[str, int]) -> dict[str, Any]:
  """Returns the JSON form: totals, then the stages; `sent` is of `host_bytes`."""
  return {
      'model': name, 'input_shape': list(counted.input_shape),
      **dataclasses.asdict(counted.total),
      'host_bytes': sent,
      'stages': {
          stage: {'output_shape': list(counted.output_shapes.get(stage, ())),
                  **dataclasses.asdict(counts)}
          for stage, counts in counted.stages.items()}}


def as_table(counted: cost.Cost, name: str, sent: dict[str, int]) -> str:
  """Returns the text form: a line for each stage, then the totals; no columns of zeros."""
  rows = []
  for stage, counts in [*counted.stages.items(), ('total', counted.total)]:
    shape = 'x'.join(map(str, counted.output_shapes.get(stage, ())))
    rows.append((stage, shape, *(f'{value:,}' for value in dataclasses.astuple(counts))))
  keep = [i for i, _ in enumerate(_COLUMNS) if i < 2 or any(row[i] != '0' for row in rows)]
  rows = [[row[i] for i in keep] for row in [_COLUMNS, *rows]]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['  '.join([row[0].ljust(widths[0]), *(
      value.rjust(width) for value, width in zip(row[1:], widths[1:]))]).rstrip() for row in rows]
  shape = ' x '.join(map(str, counted.input_shape))
  total = counted.total
  text = f'{total.parameters / 1e6:.2f} M parameters, {total.macs / 1e9:.3f} G multiply-adds'
  title = f'{name}, input {shape}: {text} an image'
  if len(sent) > 1:
    title += (f'\nbytes an image to the device: {sent["rgb"]:,} as RGB, {sent["420"]:,} as 4:2:0 '
              f'planes, {sent["int16"]:,} or {sent["int8"]:,} as 16-bit or 8-bit coefficients')
  return '\n'.join([title, '', *lines])
