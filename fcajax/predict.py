"""Classify images with a trained model: the Python function and `fcajax predict`."""
import itertools
import json
import pathlib
import sys

from fcajax.cli import positive_int
from fcajax.images import SUFFIXES


def find_images(paths):
  """Expands folders (recursively) and returns image files in order, each checked to exist.

  What a folder hides behind a leading dot is passed over, such as the `._x.jpg` that macOS writes
  beside x.jpg on other file systems.
  """
  files = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES and not p.is_dir()
                      and not any(part.startswith('.') for part in p.relative_to(path).parts))
      if not inside:
        raise ValueError(f"no image in '{path}'; looked for {', '.join(SUFFIXES)}")
      files += inside
    elif path.is_file():
      files.append(path)
    else:
      raise FileNotFoundError(f"no such image or folder: '{path}'")
  return files


def read_images(files, preprocessing, named=None):
  """Yields `(file, uint8 [h, w, 3])` of the image files that can be read, in order.

  Args:
    files: of `find_images`.
    preprocessing: `fcajax.preprocess.Preprocessing`; resizes and crops.
    named: files whose damage is an error, because the user named them; others were found in a
      folder, where a broken one is named on stderr and left out. None: all of them.
  Raises:
    ValueError: a broken file of `named`, or no file could be read.
  """
  from fcajax.preprocess import ImageError, decode_image, evaluation_transform
  strict = None if named is None else set(map(pathlib.Path, named))
  count = 0
  for file in files:
    try:
      image = decode_image(file)
    except (ImageError, OSError) as error:
      if strict is None or file in strict:
        raise
      print(f'left out: {error}', file=sys.stderr)
      continue
    count += 1
    yield file, evaluation_transform(image, preprocessing)
  if files and not count:
    raise ValueError(f'none of the {len(files)} image files can be read; name others')


def probabilities_function(model, preprocessing):
  """Returns a pure function: variables, uint8 `[N, H, W, 3]` -> class probabilities `[N, classes]`.

  `H` and `W` are those of `preprocessing.image_size`; normalisation (or the block DCT) runs inside.
  """
  import jax

  from fcajax.preprocess import device_transform
  to_input = device_transform(preprocessing, model.dtype or 'float32')

  def probabilities(variables, images):
    return jax.nn.softmax(model.apply(variables, to_input(images), train=False), axis=-1)

  return probabilities


def predict_files(path, files, *, top=5, batch_size=32, named=None):
  """Yields `(file, [(class name, probability), ...])` for image files, best class first.

  Args:
    path: a work directory of train.py or a .safetensors file.
    files: image files; any size, colour mode and EXIF orientation.
    top: how many classes to return, at most the number of classes.
    batch_size: images decoded and classified at a time.
    named: of the files, as `read_images` takes it; None allows none to be broken.
  Raises:
    ValueError: a file that is no image, named in the message.
  """
  import jax
  import numpy as np

  from fcajax.preprocess import Preprocessing
  from fcajax.weights import load_model
  model, variables, metadata = load_model(path)
  preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
  names = metadata['class_names']
  predictor = jax.jit(probabilities_function(model, preprocessing))
  size = min(batch_size, len(files))
  pairs = read_images(files, preprocessing, named)
  while pair := list(itertools.islice(pairs, size)):
    group, images = [list(column) for column in zip(*pair)]
    # The last group is filled up so that every call has one shape and compiles once.
    images += images[-1:] * (size - len(images))
    rows = np.asarray(predictor(variables, np.stack(images)))[:len(group)]
    for file, row in zip(group, rows):
      best = np.argsort(-row, kind='stable')[:top]
      yield file, [(names[i], float(row[i])) for i in best]


def add_arguments(parser):
  parser.add_argument('model', help='a work directory of train.py or a .safetensors file')
  parser.add_argument('images', nargs='+', help='image files or folders')
  parser.add_argument(
      '--top', type=positive_int, default=5, help='classes shown an image (default 5)')
  parser.add_argument(
      '--batch-size', type=positive_int, default=32, help='images at a time (default 32)')
  parser.add_argument('--json', action='store_true', help='one JSON object a line')


def run(args):
  files = find_images(args.images)
  for file, ranked in predict_files(args.model, files, top=args.top, batch_size=args.batch_size,
                                    named=args.images):
    if args.json:
      print(json.dumps({'image': str(file), 'top': [[n, round(p, 6)] for n, p in ranked]}))
    else:
      print(f'{file}: ' + ', '.join(f'{name} {100 * p:.1f}%' for name, p in ranked))
  return 0
