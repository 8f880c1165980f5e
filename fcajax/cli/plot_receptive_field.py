"""`fcajax plot receptive-field MODEL...`: the part of the image that an output depends on.

    fcajax plot receptive-field resnet50 ffc_resnet50 --images photos/
"""
import argparse

from fcajax.analysis import receptive_field
from fcajax.cli.arguments import add_batch_size, add_image_size, add_images, add_model, add_out
from fcajax.inference import open_model
from fcajax.inference.read_images import load_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser, several=True)
  add_images(parser, f'{receptive_field.NOISE_IMAGES} images of noise')
  add_image_size(parser)
  parser.add_argument(
      '--feature', default=None, metavar='STAGE',
      help="the feature map whose centre counts, such as 'stage3' (default: the last)")
  add_batch_size(parser, 4)
  parser.add_argument('--seed', type=int, default=0, help='of random weights and noise (default 0)')
  add_out(parser, 'receptive_field.png')


def run(args: argparse.Namespace) -> None:
  fields = {}
  for name in args.models:
    loaded = open_model.load(name, args.image_size, args.seed)
    if args.images:
      _, images = load_images(args.images, loaded.preprocessing)
    else:
      images = receptive_field.noise(loaded.preprocessing.shape, args.seed)
    field = receptive_field.effective_receptive_field(
        loaded.model, loaded.variables, images, loaded.input_transform(), args.feature,
        args.batch_size)
    fields[f'{loaded.label}, {name}' if loaded.label in fields else loaded.label] = field
    side = receptive_field.half_side(field)
    print(f'{loaded.label}: half of the gradient lies within {side} x {side} pixels')
  kind = 'image' if args.images else 'noise image'
  receptive_field.draw(
      fields, args.out, f'Effective receptive field of the centre of '
      f'{args.feature or "the last map"}, {len(images)} {kind}{"s"[:len(images) - 1]}')
  print(f'wrote {args.out}')
