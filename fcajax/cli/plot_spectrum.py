"""`fcajax plot spectrum MODEL --images PATH...`: the energy of the feature maps, by stage."""
import argparse

from fcajax.analysis import spectrum
from fcajax.analysis.pictures import count_of_images
from fcajax.cli.arguments import add_batch_size, add_image_size, add_images, add_model, add_out
from fcajax.inference import open_model
from fcajax.inference.read_images import load_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  add_images(parser)
  add_image_size(parser)
  add_batch_size(parser, 16)
  add_out(parser, 'spectrum.png')


def run(args: argparse.Namespace) -> None:
  loaded = open_model.load(args.model, args.image_size)
  files, images = load_images(args.images, loaded.preprocessing)
  spectra = spectrum.feature_spectra(
      loaded.model, loaded.variables, images, loaded.input_transform(), args.batch_size)
  spectrum.draw(spectra, args.out, f'{loaded.label}, {count_of_images(len(files))}')
  print(f'wrote {args.out}')
