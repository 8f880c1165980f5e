"""`fcajax plot coefficients IMAGE`: what a network on block-DCT coefficients reads of an image."""
import argparse

from fcajax.analysis import coefficient_maps
from fcajax.cli.arguments import add_image_size, add_out
from fcajax.inference.read_images import find_images, read_images
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection.coefficients import coefficient_subset, rgb_to_coefficients

_SIZE = 448


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('image', metavar='IMAGE', help='an image file')
  parser.add_argument('--coefficients', default='24S',
                      help="subset: a name, a .json file or 'y:0,1;cb:0;cr:0' (default 24S)")
  add_image_size(parser, f'{_SIZE}; multiples of 8, or of 16 with --chroma half')
  parser.add_argument('--chroma', default='full', choices=('full', 'half'),
                      help='chroma blocks at full or at half resolution (default full)')
  add_out(parser, 'coefficients.png')


def run(args: argparse.Namespace) -> None:
  subset = coefficient_subset(args.coefficients)
  preprocessing = Preprocessing(args.image_size or _SIZE, representation='dct', chroma=args.chroma,
                                coefficients=subset.spec)
  _, image = next(read_images(find_images([args.image]), preprocessing, [args.image]))
  maps = rgb_to_coefficients(image[None], subset, args.chroma)[0]
  coefficient_maps.draw(image, maps, subset, args.out)
  height, width = preprocessing.shape
  print(f'wrote {args.out}: {height} x {width} pixels as {maps.shape[0]} x {maps.shape[1]} blocks '
        f'of {len(subset)} coefficients')
