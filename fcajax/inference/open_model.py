"""Opens what the commands take as MODEL: a model's name, a weights file or a work directory."""
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fcajax.errors import UserError
from fcajax.inference.load import load_model
from fcajax.layers.streams import init_keys
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing, device_transform
from fcajax.selection.coefficients import coefficient_subset


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A network and what its analysis needs.

  Attributes:
    model: the Linen module.
    name: of the model.
    variables: its variables; None where none were asked for.
    preprocessing: what images need before the network; None where no weights were asked for.
    class_names: names of the classes, or None.
    task: what the network was trained for.
    trained: False where the weights are random.
    metadata: what is stored beside the weights, see `fcajax.tasks.base.Task.metadata`.
  """
  model: Any
  name: str
  variables: Any = None
  preprocessing: Preprocessing | None = None
  class_names: list[str] | None = None
  task: str = 'classification'
  trained: bool = False
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def label(self) -> str:
    """The name, with a remark where the weights are random."""
    return self.name if self.trained else f'{self.name} (random weights)'

  def input_transform(self, dtype: Any = None) -> Callable[[Any], Any]:
    """Returns the function from uint8 pixels to the network's input; None is float32."""
    return device_transform(self.preprocessing, dtype or 'float32')


def open_trained(path: str | pathlib.Path, step: str | int = 'best') -> Loaded:
  """Opens a weights file or a work directory; arguments and errors as of `load_model`."""
  model, variables, metadata = load_model(path, step)
  preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
  return Loaded(model, metadata['model']['name'], variables, preprocessing,
                metadata.get('class_names'), metadata.get('task', 'classification'), trained=True,
                metadata=metadata)


def is_file(name: str) -> bool:
  """Returns True if MODEL is a path: a mistyped path must not be taken for a model's name."""
  return pathlib.Path(name).exists() or name.endswith('.safetensors') or '/' in name


def describe(name: str, num_classes: int | None = None,
             settings: Mapping[str, Any] | None = None) -> Loaded:
  """Opens MODEL for a look at its structure; a model's name gets no weights.

  Args:
    name: MODEL.
    num_classes: of a model's name; None for 1000.
    settings: fields of the network for `create_model`.

  Raises:
    UserError: unknown name or field; options for a file, which has its own.
  """
  if is_file(name):
    if num_classes or settings:
      raise UserError(f"'{name}' says itself how its network is built; leave out --num-classes "
                      'and --set, or give the name of a model')
    return load(name)
  return Loaded(create_model(name, num_classes=num_classes or 1000, **(settings or {})), name)


def load(name: str, size: Sequence[int] | None = None, seed: int = 0) -> Loaded:
  """Opens MODEL with its weights; those of a model's name are drawn from `seed`.

  Args:
    name: MODEL.
    size: (height, width) of the images; None for that of the weights or of `image_size`.
    seed: of random weights.
  """
  if is_file(name):
    opened = open_trained(name)
    if size is None:
      return opened
    size = image_size(size, opened.model)
    input_shape(opened.model, size)  # checks the size
    return dataclasses.replace(opened, preprocessing=dataclasses.replace(
        opened.preprocessing, image_size=size, resize_size=0))
  model = create_model(name)
  size = image_size(size, model)
  image = jnp.zeros((1, *input_shape(model, size)))
  variables = jax.jit(lambda k, x: model.init(k, x, train=False))(
      init_keys(jax.random.key(seed)), image)
  return Loaded(model, name, variables, preprocessing_for(model, size))


def preprocessing_for(model: Any, size: int | tuple[int, int], **fields: Any) -> Preprocessing:
  """Returns the `Preprocessing` of a network without trained weights.

  Args:
    model: the network.
    size: of the images in pixels, or (height, width).
    **fields: further fields of `Preprocessing`.
  """
  if hasattr(model, 'coefficients'):
    fields = {'representation': 'dct', 'coefficients': model.coefficients, 'chroma': 'full',
              **fields}
  return Preprocessing(image_size=size, **fields)


def image_size(given: Sequence[int] | None, model: Any,
               preprocessing: Preprocessing | None = None) -> tuple[int, int]:
  """Returns `(height, width)` in pixels: as given, else of the weights, else the network's usual.

  Networks on coefficients read an eighth of it: 448 pixels make a ResNet's 56 x 56.
  """
  if given is not None:
    return (given[0], given[-1])
  if preprocessing is not None:
    return preprocessing.shape
  size = 32 if getattr(model, 'stem', None) == 'cifar' else 224
  if hasattr(model, 'coefficients'):
    # 8 x 8 blocks stand in for the stem, which strides by 4 in a ResNet and by 2 in MobileNetV2.
    size = 448 if hasattr(model, 'stage_sizes') else 896
  return (size, size)


def input_shape(model: Any, size: tuple[int, int]) -> tuple[int, int, int]:
  """Returns `(H, W, C)` of the network's input for images of `size` pixels.

  Raises:
    UserError: sides that blocks of 8 do not divide, for a network on coefficients.
  """
  if not hasattr(model, 'coefficients'):
    return (*size, 3)
  if any(side % 8 for side in size):
    raise UserError(f'--image-size {size[0]} {size[1]}: the network reads coefficients of 8 x 8 '
                    f'blocks; use multiples of 8, such as {math.ceil(size[0] / 8) * 8}')
  return (size[0] // 8, size[1] // 8, len(coefficient_subset(model.coefficients)))
