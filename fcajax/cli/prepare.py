"""`fcajax prepare`: a TFDS data set as array_record files, which training reads without TensorFlow.

    fcajax prepare cifar10
    fcajax prepare imagenet2012 --data-dir /data/tfds
    fcajax prepare path/to/my_builder.py
"""
import argparse

from fcajax.input_pipeline.tools import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('name', metavar='NAME', help='TFDS name, or a .py file with a builder')
  parser.add_argument(
      '--data-dir', default='', metavar='DIR',
      help='where data sets live (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)')


def run(args: argparse.Namespace) -> int:
  directory = prepare.prepare(args.name, args.data_dir)
  name = args.name if not args.name.endswith('.py') else directory.parent.name
  print(f'{directory} is ready: --config.data.source=tfds --config.data.name={name}'
        + (f' --config.data.data_dir={args.data_dir}' if args.data_dir else ''))
  return 0
