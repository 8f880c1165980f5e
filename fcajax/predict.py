"""Classify images with a trained model: the Python function and `fcajax predict`."""
import json
import pathlib

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')


def find_images(paths):
  """Expands folders (recursively) and returns image files in order, each checked to exist."""
  files = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = sorted(p for p in path.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
      if not inside:
        raise ValueError(f"no image in '{path}'; looked for {', '.join(IMAGE_SUFFIXES)}")
      files += inside
    elif path.is_file():
      files.append(path)
    else:
      raise FileNotFoundError(f"no such image or folder: '{path}'")
  return files


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


def predict_files(path, files, *, top=5, batch_size=32):
  """Yields `(file, [(class name, probability), ...])` for image files, best class first.

  Args:
    path: a work directory of train.py or a .safetensors file.
    files: image files; any size, colour mode and EXIF orientation.
    top: how many classes to return, at most the number of classes.
    batch_size: images decoded and classified at a time.
  Raises:
    ValueError: a file that is no image, named in the message.
  """
  import jax
  import numpy as np

  from fcajax.preprocess import Preprocessing, decode_image, evaluation_transform
  from fcajax.weights import load_model
  model, variables, metadata = load_model(path)
  preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
  names = metadata['class_names']
  predictor = jax.jit(probabilities_function(model, preprocessing))
  size = min(batch_size, len(files))
  for start in range(0, len(files), size):
    group = files[start:start + size]
    images = [evaluation_transform(decode_image(file), preprocessing) for file in group]
    # The last group is filled up so that every call has one shape and compiles once.
    images += images[-1:] * (size - len(images))
    rows = np.asarray(predictor(variables, np.stack(images)))[:len(group)]
    for file, row in zip(group, rows):
      best = np.argsort(-row, kind='stable')[:top]
      yield file, [(names[i], float(row[i])) for i in best]


def add_arguments(parser):
  parser.add_argument('model', help='a work directory of train.py or a .safetensors file')
  parser.add_argument('images', nargs='+', help='image files or folders')
  parser.add_argument('--top', type=int, default=5, help='classes shown an image (default 5)')
  parser.add_argument('--batch-size', type=int, default=32, help='images at a time (default 32)')
  parser.add_argument('--json', action='store_true', help='one JSON object a line')


def run(args):
  if args.top < 1 or args.batch_size < 1:
    raise ValueError(f'--top and --batch-size start at 1; got {args.top} and {args.batch_size}')
  files = find_images(args.images)
  for file, ranked in predict_files(args.model, files, top=args.top, batch_size=args.batch_size):
    if args.json:
      print(json.dumps({'image': str(file), 'top': [[n, round(p, 6)] for n, p in ranked]}))
    else:
      print(f'{file}: ' + ', '.join(f'{name} {100 * p:.1f}%' for name, p in ranked))
  return 0
