"""What the analysis commands take as MODEL: a registry name, a weights file or a work directory."""
import ast
import dataclasses
import math
import pathlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network and what its pictures need.

  Attributes:
    model: the Linen module.
    name: of the model.
    variables: its variables, or None where none were asked for.
    preprocessing: `fcajax.preprocess.Preprocessing`; None for a registry name.
    class_names: list of str, or None.
    trained: False where the weights are random.
  """
  model: Any
  name: str
  variables: Any = None
  preprocessing: Any = None
  class_names: list | None = None
  trained: bool = False


def add_arguments(parser, out):
  """The arguments of a command that draws what a network makes of images, into the file `out`."""
  parser.add_argument(
      'model', help="a work directory, a .safetensors file or a name of 'fcajax list' (random "
                    'weights)')
  parser.add_argument('images', nargs='+', help='image files or folders')
  parser.add_argument(
      '--image-size', type=int, nargs='+', default=None, metavar='SIZE',
      help='side of the image in pixels, or height and width, for a name')
  parser.add_argument('--batch-size', type=int, default=16, help='images at a time (default 16)')
  parser.add_argument(
      '--out', default=out, metavar='FILE', help=f'picture to write (default {out})')


def parse_settings(settings):
  """`['frequencies=top8', 'width=32']` -> `{'frequencies': 'top8', 'width': 32}`."""
  values = {}
  for setting in settings:
    key, equals, text = setting.partition('=')
    if not equals or not key.isidentifier():
      raise ValueError(f"--set {setting} must be KEY=VALUE, for example --set frequencies='top8'")
    try:
      values[key] = ast.literal_eval(text)
    except (SyntaxError, ValueError):
      values[key] = text
  return values


def is_file(name):
  """Whether MODEL is meant as a path, so that a mistyped path is not taken for a model's name."""
  return pathlib.Path(name).exists() or name.endswith('.safetensors') or '/' in name


def describe(name, classes=None, settings=()):
  """Opens MODEL without its weights' values being needed; returns `Loaded`.

  Args:
    name: MODEL.
    classes: number of classes of a registry name; None for 1000.
    settings: 'KEY=VALUE' strings for `create_model`.

  Raises:
    ValueError: unknown name or key; options for a file, which has its own.
  """
  if is_file(name):
    if classes or settings:
      raise ValueError(f"'{name}' says itself how its network is built; leave out --classes and "
                       '--set, or give the name of a model')
    return load(name)
  from fcajax.models.registry import create_model
  model = create_model(name, num_classes=classes or 1000, **parse_settings(settings))
  return Loaded(model, name)


def load(name, image_sizes=None, seed=0):
  """Opens MODEL with its weights; those of a registry name are drawn from `seed`.

  Args:
    name: MODEL.
    image_sizes: for a registry name, as `preprocessing_for` takes it.
    seed: of random weights.
  """
  from fcajax.preprocess import Preprocessing
  if is_file(name):
    from fcajax.weights import load_model
    model, variables, metadata = load_model(name)
    preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
    return Loaded(model, metadata['model']['name'], variables, preprocessing,
                  metadata.get('class_names'), trained=True)
  import jax
  import jax.numpy as jnp

  from fcajax.models.registry import create_model
  model = create_model(name)
  size = image_size(image_sizes, model)
  preprocessing = preprocessing_for(model, size)
  keys = dict.fromkeys(('params', 'dropout', 'gate'), jax.random.key(seed))
  image = jnp.zeros((1, *input_shape(model, size)))
  variables = jax.jit(lambda k, x: model.init(k, x, train=False))(keys, image)
  return Loaded(model, name, variables, preprocessing)


def preprocessing_for(model, size):
  """The `Preprocessing` of a network with no weights of its own; `size` as `image_size` gives."""
  from fcajax.preprocess import Preprocessing
  if not hasattr(model, 'coefficients'):
    return Preprocessing(image_size=size)
  return Preprocessing(
      image_size=size, representation='dct', coefficients=model.coefficients, chroma='full')


def image_size(given, model, preprocessing=None):
  """`(height, width)` in pixels from the command line, the weights or the network's usual size.

  Networks on coefficients see an eighth of it: 448 pixels make a ResNet's 56 x 56.
  """
  if given is not None:
    if len(given) > 2 or min(given) < 1:
      raise ValueError(f'--image-size {" ".join(map(str, given))} must be one side, or a height '
                       'and a width')
    return (given[0], given[-1])
  if preprocessing is not None:
    return preprocessing.shape
  size = 32 if getattr(model, 'stem', None) == 'cifar' else 224
  if hasattr(model, 'coefficients'):
    # A network without the stem that halves twice (ResNet) or once (MobileNetV2).
    size = 448 if hasattr(model, 'stage_sizes') else 896
  return (size, size)


def input_shape(model, size):
  """`(H, W, C)` of the network's input for images of `size` pixels.

  Raises:
    ValueError: sides that blocks of 8 do not divide, for a network on coefficients.
  """
  if not hasattr(model, 'coefficients'):
    return (*size, 3)
  if any(side % 8 for side in size):
    raise ValueError(f'--image-size {size[0]} {size[1]}: the network reads coefficients of 8 x 8 '
                     f'blocks; use multiples of 8, such as {math.ceil(size[0] / 8) * 8}')
  from fcajax.ops.coefficients import coefficient_subset
  return (size[0] // 8, size[1] // 8, len(coefficient_subset(model.coefficients)))


def images_of(paths, preprocessing):
  """Image files or folders -> (files, uint8 `[N, h, w, 3]`), folders searched recursively."""
  import numpy as np

  from fcajax.predict import find_images
  from fcajax.preprocess import decode_image, evaluation_transform
  files = find_images(paths)
  return files, np.stack([
      evaluation_transform(decode_image(file), preprocessing) for file in files])
