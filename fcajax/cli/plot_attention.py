"""`fcajax plot attention MODEL --images PATH...`: gate values by stage, channel and class."""
import argparse

import numpy as np

from fcajax.analysis import attention_gates
from fcajax.analysis.pictures import count_of_images
from fcajax.cli.arguments import add_batch_size, add_image_size, add_images, add_model, add_out
from fcajax.inference import open_model
from fcajax.inference.read_images import load_images

_MOST_ROWS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_model(parser)
  add_images(parser)
  add_image_size(parser)
  add_batch_size(parser, 16)
  parser.add_argument(
      '--by', choices=attention_gates.GROUPS, default=None,
      help="what makes a row: the image's folder, the predicted class or each image (default: "
           'folder where there is more than one, else image)')
  parser.add_argument(
      '--block', type=int, default=-1,
      help='which block of each stage, counted from 0; -1, the default, is the last')
  add_out(parser, 'attention.png')


def run(args: argparse.Namespace) -> None:
  loaded = open_model.load(args.model, args.image_size)
  files, images = load_images(args.images, loaded.preprocessing)
  gates, predicted = attention_gates.gate_values(
      loaded.model, loaded.variables, images, loaded.input_transform(), args.batch_size)
  chosen = attention_gates.choose_blocks(gates, args.block)
  groups = attention_gates.group_names(files, predicted, loaded.class_names, args.by)
  rows = sorted(set(groups))
  if len(rows) > _MOST_ROWS:
    print(f'showing {_MOST_ROWS} of {len(rows)} rows')
    rows = rows[:_MOST_ROWS]
  means = {layer: np.stack([values[np.array(groups) == row].mean(axis=0) for row in rows])
           for layer, values in chosen.items()}
  attention_gates.draw(means, rows, args.out, f'{loaded.label}, {count_of_images(len(files))}')
  print(f'wrote {args.out}')
