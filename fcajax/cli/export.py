"""`fcajax export MODEL OUT`: a trained model as one file.

    fcajax export runs/flowers flowers.safetensors  # weights, class names, preprocessing
    fcajax export runs/flowers flowers.stablehlo    # a function: pixels to probabilities (of a
                                                    # detector: one image and its size to boxes)
"""
import argparse
import pathlib

from fcajax import tasks
from fcajax.cli.arguments import add_trained_model
from fcajax.errors import UserError
from fcajax.export.stablehlo import ALLOWED_PLATFORMS, PLATFORMS, check_platforms, save_stablehlo
from fcajax.inference.open_model import open_trained
from fcajax.weights.safetensors_file import save_safetensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_trained_model(parser)
  parser.add_argument('output', help='a path ending in .safetensors or .stablehlo')
  parser.add_argument(
      '--platforms', default=','.join(PLATFORMS),
      help=f"for .stablehlo: where it runs, comma-separated, of {', '.join(ALLOWED_PLATFORMS)} "
           f"(default {','.join(PLATFORMS)})")


def run(args: argparse.Namespace) -> None:
  output = pathlib.Path(args.output)
  if output.suffix not in ('.safetensors', '.stablehlo'):
    raise UserError(
        f"cannot export to '{output}'; its name must end in .safetensors or .stablehlo")
  if not output.parent.is_dir():
    raise UserError(f"folder '{output.parent}' does not exist; create it first")
  platforms = args.platforms.split(',')
  if output.suffix == '.stablehlo':
    check_platforms(platforms)
  opened = open_trained(args.model)
  if output.suffix == '.safetensors':
    save_safetensors(output, opened.variables, opened.metadata)
  else:
    function, inputs = tasks.of_metadata(opened.metadata).exported_function(opened)
    save_stablehlo(output, function, inputs, platforms)
  print(f'wrote {output} ({output.stat().st_size / 1e6:.1f} MB)')
