"""Image files and folders, found and read as the evaluation of a network reads them."""
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fcajax.errors import NotFoundError, UserError, reading
from fcajax.preprocessing.decode import SUFFIXES
from fcajax.preprocessing.spec import Preprocessing, decode_image, evaluation_transform
from fcajax.typing import UInt8

Path = str | pathlib.Path


def find_images(paths: Iterable[Path]) -> list[pathlib.Path]:
  """Expands folders (recursively) and returns image files in order, each checked to exist.

  Hidden files and folders (a leading dot) inside a folder are skipped, such as the `._x.jpg` that
  macOS writes beside x.jpg on other file systems.

  Raises:
    UserError: a path that does not exist, or a folder without images.
  """
  files = []
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      inside = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES and not p.is_dir()
                      and not any(part.startswith('.') for part in p.relative_to(path).parts))
      if not inside:
        raise UserError(f"no image in '{path}'; looked for {', '.join(SUFFIXES)}")
      files += inside
    elif path.is_file():
      files.append(path)
    else:
      raise NotFoundError(f"no such image or folder: '{path}'")
  return files


def read_images(
    files: Sequence[pathlib.Path], preprocessing: Preprocessing,
    named: Iterable[Path] | None = None,
) -> Iterator[tuple[pathlib.Path, UInt8[np.ndarray, 'h w 3']]]:
  """Yields (file, resized and cropped pixels) of the image files that can be read, in order.

  Args:
    files: of `find_images`.
    preprocessing: how to resize and crop.
    named: as of `decode_files`.

  Raises:
    UserError: as `decode_files`.
  """
  for file, image in decode_files(files, named):
    yield file, evaluation_transform(image, preprocessing)


def decode_files(
    files: Sequence[pathlib.Path], named: Iterable[Path] | None = None,
    decode: Callable[[pathlib.Path], Any] = decode_image,
) -> Iterator[tuple[pathlib.Path, Any]]:
  """Yields (file, what `decode` returns) of the image files that can be read, in order.

  Args:
    files: of `find_images`.
    decode: file -> anything; the upright pixels, uint8 RGB, by default.
    named: files that the user named, in which damage is an error; other files were found in a
      folder, where a broken one is reported on stderr and left out. None: all of them.

  Raises:
    UserError: a broken file of `named`, or no file could be read.
  """
  strict = None if named is None else set(map(pathlib.Path, named))
  count = 0
  for file in files:
    try:
      with reading(file):
        image = decode(file)
    except UserError as error:
      if strict is None or file in strict:
        raise
      print(f'left out: {error}', file=sys.stderr)
      continue
    count += 1
    yield file, image
  if files and not count:
    raise UserError(f'none of the {len(files)} image files can be read; name others')


def load_images(
    paths: Sequence[Path], preprocessing: Preprocessing,
) -> tuple[list[pathlib.Path], UInt8[np.ndarray, 'n h w 3']]:
  """Reads all images of files and folders at once: returns (files, pixels)."""
  files, images = zip(*read_images(find_images(paths), preprocessing, paths))
  return list(files), np.stack(images)
