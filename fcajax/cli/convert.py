"""`fcajax convert IN OUT --model NAME`: PyTorch weights to a safetensors file.

    fcajax convert fcanet50.pth fcanet50.safetensors --model fca_resnet50
    fcajax convert flowers.pth flowers.safetensors --model resnet18 --class-names flowers.txt
"""
import argparse
import json
import pathlib
from typing import Any

import jax

from fcajax.cli.arguments import add_image_size, positive_int
from fcajax.cli.settings import add_settings, explain_settings, parse_settings
from fcajax.errors import UserError, reading
from fcajax.inference.open_model import image_size, preprocessing_for
from fcajax.models.detection.two_stage import TwoStageDetector
from fcajax.preprocessing.keep_aspect import KeepAspect, bucket_shapes
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection.coefficients import coefficient_statistics, portable_spec
from fcajax.tasks.detection import Detection
from fcajax.weights.safetensors_file import save_safetensors
from fcajax.weights.torch.convert import convert_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('input', help='.pth or .safetensors with a PyTorch state dict')
  parser.add_argument('output', help='the .safetensors file to write')
  parser.add_argument('--model', required=True, help="a name of 'fcajax list'")
  parser.add_argument('--num-classes', type=positive_int, default=None,
                      help='classes of the head (default: read from the checkpoint)')
  add_settings(parser)
  parser.add_argument('--class-names', metavar='FILE',
                      help='a name a line in the order of the logits, or a JSON list')
  add_image_size(parser, '224, 32 for the 32x32 networks, 448 or 896 for those on coefficients')
  parser.add_argument('--resize-size', type=int, default=0,
                      help='the short side before the crop (default: image size * 256 / 224)')
  parser.add_argument('--mean', type=float, nargs=3, default=None,
                      help="of RGB in 0..1 (default: ImageNet's)")
  parser.add_argument('--std', type=float, nargs=3, default=None,
                      help="of RGB in 0..1 (default: ImageNet's)")
  parser.add_argument('--statistics', default='published', metavar='FILE',
                      help="of coefficients, for networks that read them: a file, 'published' "
                           "(default) or 'none'")


def run(args: argparse.Namespace) -> None:
  output = pathlib.Path(args.output)
  if output.suffix != '.safetensors':
    raise UserError(f"cannot write '{output}'; its name must end in .safetensors")
  if not output.parent.is_dir():
    raise UserError(f"cannot write '{output}': the folder '{output.parent}' does not exist; create "
                    'it first')
  settings = parse_settings(args.set)
  with explain_settings(args.model, settings):
    converted = convert_checkpoint(args.input, args.model, args.num_classes, settings)
  classes = converted.model.num_classes
  metadata = {
      'model': {'name': args.model, 'num_classes': classes, 'overrides': converted.overrides},
      'class_names': read_class_names(args.class_names, classes),
      'preprocessing': _preprocessing(args, converted.model).to_dict(),
  }
  if isinstance(converted.model, TwoStageDetector):
    metadata['task'] = Detection.name
  save_safetensors(output, converted.variables, metadata)
  if converted.prefix:
    print(f"left out '{converted.prefix}', with which the name of every tensor starts")
  fields = ''.join(f', {key}={value!r}' for key, value in converted.overrides.items())
  count = sum(leaf.size for leaf in jax.tree.leaves(converted.variables['params']))
  print(f'wrote {output}: {args.model}, {classes} classes{fields}, {count:,} parameters')


def read_class_names(path: str | None, num_classes: int) -> list[str]:
  """Reads the names in a file, one for each class; 'class 0', ... if `path` is None.

  Raises:
    UserError: another number of names, or JSON that is no list of strings.
  """
  if path is None:
    return [f'class {i}' for i in range(num_classes)]
  try:
    with reading(path):
      text = pathlib.Path(path).read_text(encoding='utf-8')
    names = json.loads(text) if pathlib.Path(path).suffix == '.json' else [
        line.strip() for line in text.splitlines() if line.strip()]
  except UnicodeDecodeError as error:
    raise UserError(f"'{path}' is no text in UTF-8 ({error})") from error
  except json.JSONDecodeError as error:
    raise UserError(f"'{path}' is no JSON ({error})") from error
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise UserError(f"'{path}' must hold a JSON list of strings, the names in the logits' order")
  if len(names) != num_classes:
    raise UserError(f"'{path}' names {len(names)} classes, the network has {num_classes}")
  return names


def _preprocessing(args: argparse.Namespace, model: Any) -> Preprocessing:
  """Returns what images need before `model`."""
  size = image_size(args.image_size, model)
  if isinstance(model, TwoStageDetector) and args.image_size is None:
    size = bucket_shapes(KeepAspect())[-2]
  fields = {key: value for key, value in (('mean', args.mean), ('std', args.std)) if value}
  if hasattr(model, 'coefficients'):
    fields['coefficients'] = portable_spec(model.coefficients)
    if args.statistics != 'none':
      mean, std = coefficient_statistics(args.statistics, model.coefficients, 'full', size)
      fields |= {'coefficient_mean': mean.tolist(), 'coefficient_std': std.tolist()}
  return preprocessing_for(
      model, size[0] if size[0] == size[1] else size, resize_size=args.resize_size, **fields)
