"""What the analysis commands take as MODEL: a registry name, a weights file or a work directory."""
import ast
import contextlib
import dataclasses
import json
import math
import pathlib
from typing import Any

from fcajax.cli import positive_int


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
  parser.add_argument(
      '--batch-size', type=positive_int, default=16, help='images at a time (default 16)')
  parser.add_argument(
      '--out', default=out, metavar='FILE', help=f'picture to write (default {out})')


def parse_settings(settings, classes='--classes', model='MODEL'):
  """`['frequencies=top8', 'width=32']` -> `{'frequencies': 'top8', 'width': 32}`.

  Args:
    settings: 'KEY=VALUE' strings; see `parse_value`.
    classes, model: what the command calls the number of classes and the name, which are no
      settings.

  Raises:
    ValueError: no KEY=VALUE, or a key that has an argument of its own.
  """
  values = {}
  for setting in settings:
    key, equals, text = setting.partition('=')
    if not equals or not key.isidentifier():
      raise ValueError(f"--set {setting} must be KEY=VALUE, for example --set frequencies='top8'")
    for reserved, argument in (('num_classes', classes), ('name', model)):
      if key == reserved:
        raise ValueError(f'--set {setting}: {key} is no field to set; give it as {argument}')
    values[key] = text if (key, text) == ('stem', 'none') else parse_value(text)
  return values


def parse_value(text):
  """A word of the command line as the Python value it spells, else the text itself.

  'true', 'false' and 'none' are read in any case, as shells and JSON write them: as text they
  would all count as true. What JSON cannot hold stays text, since it could not be stored.
  """
  words = {'true': True, 'false': False, 'none': None}
  if text.strip().lower() in words:
    return words[text.strip().lower()]
  try:
    value = ast.literal_eval(text)
    json.dumps(value)
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
    return text
  return value


@contextlib.contextmanager
def explained(name, settings):
  """While the network `name` is built and traced with `settings`, whose values may be of any type.

  Raises:
    ValueError: in place of what a value of the wrong type raises somewhere inside the network;
      it names the settings and the values that they have otherwise.
  """
  try:
    yield
  except Exception as error:
    # The networks' own messages are ValueErrors, Python's about a number start with its type.
    own = isinstance(error, ValueError) and not str(error).startswith(('invalid literal', 'could'))
    if not settings or own or isinstance(error, OSError):
      raise
    given = ' '.join(f'--set {key}={value!r}' for key, value in settings.items())
    known = ', '.join(f'{key}={value!r}' for key, value in _defaults(name, settings))
    reason = (str(error).strip().splitlines() or [''])[0][:160]
    raise ValueError(f'{name} cannot be built with {given}; use values like the default '
                     f'{known or "ones"} ({type(error).__name__}: {reason})') from error


def _defaults(name, keys):
  """Yields (key, value) of what `create_model(name)` gives those fields, where it has them."""
  from fcajax.layers.attention import resolve_attention
  from fcajax.models.registry import create_model
  model = create_model(name)
  factory = resolve_attention(
      getattr(model, 'attention', None), getattr(model, 'attention_options', None))
  for key in keys:
    for module in (model, factory() if factory else None):
      if hasattr(module, key):
        value = getattr(module, key)
        yield key, getattr(value, '__name__', value)
        break


def is_file(name):
  """Whether MODEL is meant as a path, so that a mistyped path is not taken for a model's name."""
  return pathlib.Path(name).exists() or name.endswith('.safetensors') or '/' in name


def describe(name, classes=None, settings=None):
  """Opens MODEL without its weights' values being needed; returns `Loaded`.

  Args:
    name: MODEL.
    classes: number of classes of a registry name; None for 1000.
    settings: what `create_model` gets besides, as `parse_settings` gives it.

  Raises:
    ValueError: unknown name or key; options for a file, which has its own.
  """
  if is_file(name):
    if classes or settings:
      raise ValueError(f"'{name}' says itself how its network is built; leave out --classes and "
                       '--set, or give the name of a model')
    return load(name)
  from fcajax.models.registry import create_model
  model = create_model(name, num_classes=classes or 1000, **(settings or {}))
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
  """Image files or folders -> (files, uint8 `[N, h, w, 3]`), folders searched recursively.

  Broken files of a folder are named on stderr and left out.
  """
  import numpy as np

  from fcajax.predict import find_images, read_images
  files, images = zip(*read_images(find_images(paths), preprocessing, paths))
  return list(files), np.stack(images)
