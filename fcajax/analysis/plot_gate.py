"""`fcajax plot gate PATH`: how often a trained gate opens each coefficient, as three heat maps."""
import itertools
import pathlib

from fcajax.cli import positive_int


def add_arguments(parser):
  parser.add_argument(
      'path', help='work directory or .safetensors file with a gate, or a gate_heat_map.json')
  parser.add_argument(
      '--images', default=None, metavar='FOLDER',
      help='images to count the gate over, searched recursively (default: the heat map that '
           'training left in the work directory)')
  parser.add_argument(
      '--batch-size', type=positive_int, default=32, help='images at a time (default 32)')
  parser.add_argument(
      '--out', default=None, metavar='FILE',
      help='picture to write; the numbers go to the same name with .json (default: '
           'gate_heat_map.png beside PATH)')


def run(args):
  from fcajax.analysis import gate_heat_map as heat_maps
  path = pathlib.Path(args.path)
  if not path.exists():
    raise FileNotFoundError(f"'{path}' does not exist; give a work directory, a .safetensors file "
                            f'or a {heat_maps.FILE_NAME}')
  folder = path if path.is_dir() else path.parent
  out = pathlib.Path(args.out) if args.out else folder / 'gate_heat_map.png'
  if args.images is None:
    if path.is_file() and path.suffix != '.json':
      # A heat map beside a weights file may be another network's.
      raise ValueError(f"'{path}' holds no heat map; give the images to count its gate over with "
                       '--images FOLDER')
    source = path if path.suffix == '.json' else folder / heat_maps.FILE_NAME
    if not source.exists():
      raise ValueError(f'there is no {source}; give the images to count over with --images FOLDER')
    from fcajax.ops.coefficients import read_json, select_from_heat_map
    heat_map = read_json(source)
    select_from_heat_map(heat_map, 1)  # checks the content
  else:
    heat_map = _measure(path, args.images, args.batch_size)
    heat_maps.save_heat_map(heat_map, out.with_suffix('.json'))
    print(f'wrote {out.with_suffix(".json")}')
  heat_maps.draw(heat_map, out)
  fraction = heat_map['open_fraction']
  print(f'wrote {out}: {sum(fraction):.1f} of {len(fraction)} gates open on average over '
        f'{heat_maps.counted(heat_map)}')
  return 0


def _measure(path, folder, batch_size):
  """The heat map of the network at `path` over the images of `folder`."""
  from fcajax import preprocess
  from fcajax.analysis import gate_heat_map as heat_maps
  from fcajax.predict import find_images, read_images
  from fcajax.weights import load_model
  files = find_images([folder])
  model, variables, metadata = load_model(path)
  preprocessing = preprocess.Preprocessing.from_dict(metadata['preprocessing'])
  transform = preprocess.device_transform(preprocessing, model.dtype or 'float32')
  images = (image for _, image in read_images(files, preprocessing, [folder]))
  return heat_maps.gate_heat_map(
      model, variables, _batches(images, min(batch_size, len(files))), transform)


def _batches(stream, batch_size):
  """Batches of one size, the last one padded and masked, so that one program serves all."""
  import numpy as np
  while images := list(itertools.islice(stream, batch_size)):
    mask = np.arange(batch_size) < len(images)
    images += [images[-1]] * (batch_size - len(images))
    yield {'image': np.stack(images), 'mask': mask.astype(np.float32)}
