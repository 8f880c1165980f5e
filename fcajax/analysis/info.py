"""`fcajax info MODEL`: parameters, multiply-adds and activations, by stage."""
import dataclasses
import json

from fcajax.cli import positive_int

_COLUMNS = ('stage', 'output', 'parameters', 'MACs', 'DCT', 'Fourier', 'activations')


def add_arguments(parser):
  parser.add_argument(
      'model', help="a name of 'fcajax list', a .safetensors file or a work directory")
  parser.add_argument(
      '--image-size', type=int, nargs='+', default=None, metavar='SIZE',
      help='side of the image in pixels, or height and width (default: that of the given weights, '
           'else what the network is made for: 224, or 32, 448, 896)')
  parser.add_argument(
      '--input-shape', type=int, nargs=3, default=None, metavar=('H', 'W', 'C'),
      help='shape of what the network gets, instead of deriving it from the image size')
  parser.add_argument(
      '--classes', type=positive_int, default=None, help='number of classes (default 1000)')
  parser.add_argument(
      '--set', action='append', default=[], metavar='KEY=VALUE',
      help="a field of the model, for example --set frequencies='top8' (may be repeated)")
  parser.add_argument('--json', action='store_true', help='one JSON object')


def run(args):
  cost, loaded = measure(args)
  sent = wire_bytes(cost, loaded.model)
  if args.json:
    print(json.dumps(as_dict(cost, loaded.name, sent)))
  else:
    print(as_table(cost, loaded.name, sent))
  return 0


def measure(args):
  """The Cost that the parsed arguments ask for, and the `loading.Loaded`."""
  from fcajax.analysis import cost, loading
  settings = loading.parse_settings(args.set)
  with loading.explained(args.model, settings):
    loaded = loading.describe(args.model, args.classes, settings)
    return cost.count(loaded.model, _input_shape(args, loaded)), loaded


def _input_shape(args, loaded):
  """`(H, W, C)` by --input-shape, else by the image size."""
  from fcajax.analysis import loading
  if args.input_shape:
    shape = tuple(args.input_shape)
    if min(shape) < 1:
      raise ValueError(f'--input-shape {shape} must be positive')
    return shape
  size = loading.image_size(args.image_size, loaded.model, loaded.preprocessing)
  return loading.input_shape(loaded.model, size)


def wire_bytes(cost, model):
  """Bytes of one image on its way to the device, by what is sent (`config.data.wire`, `.dct_on`).

  A network on coefficients reads one position a block of 8 x 8 pixels. Where another one reads
  no RGB, nothing is known of what is sent.
  """
  rows, columns, channels = cost.input_shape
  if not hasattr(model, 'coefficients'):
    return {'rgb': 3 * rows * columns} if channels == 3 else {}
  pixels, values = 64 * rows * columns, rows * columns * channels
  return {'rgb': 3 * pixels, '420': 3 * pixels // 2, 'int16': 2 * values, 'int8': values}


def as_dict(cost, name, sent):
  """The JSON form: totals, then the stages; `sent` as `wire_bytes` gives it."""
  return {
      'model': name, 'input_shape': list(cost.input_shape), **dataclasses.asdict(cost.total),
      'wire_bytes': sent,
      'stages': {
          stage: {'output_shape': list(cost.output_shapes.get(stage, ())),
                  **dataclasses.asdict(counts)}
          for stage, counts in cost.stages.items()}}


def as_table(cost, name, sent):
  """The text form: a line for each stage, then the totals; columns of zeros are left out."""
  rows = []
  for stage, counts in [*cost.stages.items(), ('total', cost.total)]:
    shape = 'x'.join(map(str, cost.output_shapes.get(stage, ())))
    rows.append((stage, shape, *(f'{value:,}' for value in dataclasses.astuple(counts))))
  keep = [i for i, _ in enumerate(_COLUMNS) if i < 2 or any(row[i] != '0' for row in rows)]
  rows = [[row[i] for i in keep] for row in [_COLUMNS, *rows]]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['  '.join([row[0].ljust(widths[0]), *(
      value.rjust(width) for value, width in zip(row[1:], widths[1:]))]).rstrip() for row in rows]
  shape = ' x '.join(map(str, cost.input_shape))
  total = cost.total
  text = f'{total.parameters / 1e6:.2f} M parameters, {total.macs / 1e9:.3f} G multiply-adds'
  title = f'{name}, input {shape}: {text} an image'
  if len(sent) > 1:
    title += (f'\nbytes an image to the device: {sent["rgb"]:,} as RGB, {sent["420"]:,} as 4:2:0 '
              f'planes, {sent["int16"]:,} or {sent["int8"]:,} as 16-bit or 8-bit coefficients')
  return '\n'.join([title, '', *lines])
