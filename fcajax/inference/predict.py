"""Class probabilities of images: as a pure function, and of image files."""
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fcajax.inference.open_model import Loaded, open_trained
from fcajax.inference.read_images import read_images
from fcajax.preprocessing.spec import Preprocessing, device_transform


def probabilities_function(model: Any, preprocessing: Preprocessing) -> Callable[[Any, Any], Any]:
  """Returns a pure function: variables, uint8 `[N, H, W, 3]` -> class probabilities `[N, classes]`.

  `H` and `W` are those of `preprocessing.image_size`; normalisation (or the block DCT) runs inside.
  """
  to_input = device_transform(preprocessing, model.dtype or 'float32')

  def probabilities(variables, images):
    return jax.nn.softmax(model.apply(variables, to_input(images), train=False), axis=-1)

  return probabilities


def predict_files(
    path: str | pathlib.Path, files: Sequence[str | pathlib.Path], *, top: int = 5,
    batch_size: int = 32, named: Iterable[str | pathlib.Path] | None = None,
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
  """Yields (file, [(class name, probability), ...]) for image files, best class first.

  Args:
    path: a work directory of `fcajax train` or a .safetensors file.
    files: image files; any size, colour mode and EXIF orientation.
    top: number of classes to return, at most the number of classes.
    batch_size: number of images that are decoded and classified at a time.
    named: of the files, as `read_images` takes it; None allows none to be broken.

  Raises:
    UserError: a file that is no image, named in the message.
  """
  return classify(open_trained(path), files, top=top, batch_size=batch_size, named=named)


def classify(
    opened: Loaded, files: Sequence[str | pathlib.Path], *, top: int = 5, batch_size: int = 32,
    named: Iterable[str | pathlib.Path] | None = None,
) -> Iterator[tuple[pathlib.Path, list[tuple[str, float]]]]:
  """Yields what `predict_files` yields, for a classifier that is open already."""
  predictor = jax.jit(probabilities_function(opened.model, opened.preprocessing))
  files = [pathlib.Path(file) for file in files]
  size = min(batch_size, len(files))
  pairs = read_images(files, opened.preprocessing, named)
  while pair := list(itertools.islice(pairs, size)):
    group, images = [list(column) for column in zip(*pair)]
    # The last group is filled up so that every call has one shape and compiles once.
    images += images[-1:] * (size - len(images))
    rows = np.asarray(predictor(opened.variables, np.stack(images)))[:len(group)]
    for file, row in zip(group, rows):
      best = np.argsort(-row, kind='stable')[:top]
      yield file, [(opened.class_names[i], float(row[i])) for i in best]
