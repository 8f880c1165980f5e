"""`fcajax plot gate MODEL`: how often a trained gate opens each coefficient, as three heat maps."""
import argparse
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fcajax.analysis import gate_heat_map as heat_maps
from fcajax.cli.arguments import add_batch_size, add_images
from fcajax.errors import NotFoundError, UserError
from fcajax.inference import open_model
from fcajax.inference.read_images import find_images, read_images
from fcajax.selection.coefficients import read_json, select_from_heat_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      'model', metavar='MODEL',
      help='a work directory or .safetensors file with a gate, or a gate_heat_map.json')
  add_images(parser, 'the heat map that training left in the work directory')
  add_batch_size(parser, 32)
  parser.add_argument(
      '--out', default=None, metavar='FILE',
      help='picture to write; the numbers go to the same name with .json (default: '
           f'{heat_maps.PICTURE_NAME} beside MODEL)')


def run(args: argparse.Namespace) -> None:
  path = pathlib.Path(args.model)
  if not path.exists():
    raise NotFoundError(f"'{path}' does not exist; give a work directory, a .safetensors file "
                        f'or a {heat_maps.FILE_NAME}')
  folder = path if path.is_dir() else path.parent
  out = pathlib.Path(args.out) if args.out else folder / heat_maps.PICTURE_NAME
  if args.images is None:
    heat_map = _stored(path, folder)
  else:
    heat_map = _measure(args.model, args.images, args.batch_size)
    heat_maps.save_heat_map(heat_map, out.with_suffix('.json'))
    print(f'wrote {out.with_suffix(".json")}')
  heat_maps.draw(heat_map, out)
  fraction = heat_map['open_fraction']
  print(f'wrote {out}: {sum(fraction):.1f} of {len(fraction)} gates open on average over '
        f'{heat_maps.counted(heat_map)}')


def _stored(path: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
  """Reads the heat map at `path`, or the one that training left in the work directory."""
  if path.is_file() and path.suffix != '.json':
    # A heat map beside a weights file may be another network's.
    raise UserError(f"'{path}' holds no heat map; give the images to count its gate over with "
                    '--images FOLDER')
  source = path if path.suffix == '.json' else folder / heat_maps.FILE_NAME
  if not source.exists():
    raise UserError(f'there is no {source}; give the images to count over with --images FOLDER')
  heat_map = read_json(source)
  select_from_heat_map(heat_map, 1)  # checks the content
  return heat_map


def _measure(model: str, paths: list[str], batch_size: int) -> dict[str, Any]:
  """Measures the gate of the network `model` over the images of `paths`."""
  files = find_images(paths)
  loaded = open_model.load(model)
  images = (image for _, image in read_images(files, loaded.preprocessing, paths))
  return heat_maps.gate_heat_map(
      loaded.model, loaded.variables, _batches(images, min(batch_size, len(files))),
      loaded.input_transform(loaded.model.dtype))


def _batches(stream: Iterator[np.ndarray], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches of one size, the last one padded and masked, so that one program serves all."""
  while images := list(itertools.islice(stream, batch_size)):
    mask = np.arange(batch_size) < len(images)
    images += [images[-1]] * (batch_size - len(images))
    yield {'image': np.stack(images), 'mask': mask.astype(np.float32)}
