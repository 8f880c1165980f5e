"""`fcajax select HEAT_MAP`: the coefficients that a gate opens most often, as a static subset."""
import argparse
import json
import pathlib

from fcajax.analysis.gate_heat_map import FILE_NAME
from fcajax.cli.arguments import positive_int
from fcajax.errors import UserError, writing
from fcajax.selection.coefficients import read_json, select_from_heat_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
      'heat_map', help="gate_heat_map.json of 'fcajax plot gate', or the directory that holds it")
  parser.add_argument('--count', type=positive_int, default=24,
                      help='how many coefficients to keep (default 24)')
  parser.add_argument(
      '--out', default=None, metavar='FILE',
      help="JSON file to write (default: beside the heat map, for example '24D.json')")


def run(args: argparse.Namespace) -> None:
  path = pathlib.Path(args.heat_map)
  if path.is_dir():
    path = path / FILE_NAME
  if path.suffix != '.json':
    raise UserError(f"'{path}' is no heat map, which is a .json file; for the gate of trained "
                    f'weights first: fcajax plot gate {path} --images FOLDER')
  heat_map = read_json(path)
  subset = select_from_heat_map(heat_map, args.count)
  out = pathlib.Path(args.out) if args.out else path.parent / f'{args.count}D.json'
  if out.suffix != '.json':
    raise UserError(f'--out {out} must end in .json, so that coefficients={str(out)!r} is read '
                    'as a file')
  content = {'y': subset.y, 'cb': subset.cb, 'cr': subset.cr, 'images': heat_map.get('images')}
  with writing(out):
    out.write_text(json.dumps(content, indent=1) + '\n')
  counts = ', '.join(f'{name} {len(chosen)}'
                     for name, chosen in zip(('Y', 'Cb', 'Cr'), subset.components))
  print(f'{len(subset)} coefficients ({counts}): {subset.spec}')
  print(f'wrote {out}; train with --config.data.coefficients={out}')
