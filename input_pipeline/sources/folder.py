"""Image folders: `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*` with a held-out share."""
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.sources.base import Splits, stratified_split
from fcajax.preprocessing.decode import SUFFIXES
from fcajax.typing import Integer

_LAYOUT = ('expected ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, or ROOT/CLASS/*.jpg; '
           f'images end in {", ".join(SUFFIXES)}')


# What a split's folder may be called, in lower case, in the order of preference.
_NAMES = {
    'train': ('train', 'training'),
    'validation': ('validation', 'val', 'valid', 'eval', 'evaluation', 'test', 'testing'),
}


class FolderSource:
  """Image files below one directory.

  Args:
    root: the directory.
    paths: relative to it, with '/' between the parts.
    labels: one for each path.
  """

  image_shape = None

  def __init__(self, root: str | os.PathLike, paths: Sequence[str],
               labels: Sequence[int] | Integer[np.ndarray, ' n']):
    self._root = str(root)
    # A byte array, not a list: a worker process receives a copy, and a million strings are slow.
    self._paths = np.array([os.fsencode(path) for path in paths], dtype=bytes)
    self.labels = np.asarray(labels, np.int32)

  def __len__(self) -> int:
    return len(self.labels)

  def name(self, index: int) -> str:
    return os.fsdecode(self._paths[index])

  def read(self, index: int) -> tuple[bytes, int]:
    with open(os.path.join(self._root, self.name(index)), 'rb') as file:
      return file.read(), int(self.labels[index])


def _directories(path):
  names = sorted(entry.name for entry in os.scandir(path)
                 if entry.is_dir() and not entry.name.startswith('.'))
  for name in names:
    try:
      name.encode()
    except UnicodeEncodeError:
      raise UserError(f"the folder {os.fsencode(name)!r} in '{path}' is not named in UTF-8; class "
                       'names are stored and printed, so rename it') from None
  return names


def _images(path):
  """Files below `path` that are named like images, relative to it, sorted.

  Links to folders are followed, but not to what holds `path`, and no folder is read twice.
  """
  found, here, seen = [], os.path.realpath(path), set()
  for directory, folders, files in os.walk(path, followlinks=True):
    target = os.path.realpath(directory)
    if target in seen or (target != here and os.path.commonpath([here, target]) == target):
      folders.clear()
      continue
    seen.add(target)
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    relative = pathlib.PurePath(directory).relative_to(path)
    found += [(relative / name).as_posix() for name in files
              if name.lower().endswith(SUFFIXES) and not name.startswith('.')]
  return sorted(found)


def _scan(path, classes):
  """(paths, labels) of the images of each class folder.

  Raises:
    ValueError: a class folder without images.
  """
  paths, labels, empty = [], [], []
  for label, name in enumerate(classes):
    files = _images(path / name)
    if not files:
      empty.append(name)
    paths += [f'{name}/{file}' for file in files]
    labels += [label] * len(files)
  if len(empty) == len(classes):
    raise UserError(f"no images in '{path}'; {_LAYOUT}")
  if empty:
    raise UserError(f"class folders without images in '{path}': {_few(empty)}; add images ending "
                     f'in {", ".join(SUFFIXES)} or remove the folders')
  return paths, labels


def _few(names):
  shown = ', '.join(names[:5])
  return shown + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def _find_split(root, directories, name, key):
  """The sub-folder of a split, or None where the default name was left and there is none."""
  if name in directories:
    return root / name
  if name not in _NAMES:
    raise UserError(f"data.{key}={name!r}: '{root}' has no such folder; it has "
                     f'{_few(directories)}')
  folded = {other.lower(): other for other in directories}
  return next((root / folded[other] for other in _NAMES[name] if other in folded), None)


def _check_classes(root, names):
  """Refuses class folders that look like splits: named so, and holding the same folders."""
  known = {other for others in _NAMES.values() for other in others}
  suspects = [name for name in names if name.lower() in known]
  inner = [frozenset(_directories(root / name)) for name in suspects]
  if inner and inner[0] and len(set(inner)) == 1:
    raise UserError(f"'{root}' has no folder for training, and {_few(suspects)} with the folders "
                     f'{_few(sorted(inner[0]))} looks like a split, not a class; {_LAYOUT}')


def load_splits(settings: DataSettings, seed: int) -> Splits:
  """Opens `settings.root`; see the module.

  Raises:
    NotFoundError: no such directory.
    UserError: no images, an empty class folder, or classes that differ between the splits.
  """
  if not settings.root:
    raise UserError(f'data.root is empty; give --config.data.root=DIR, {_LAYOUT}')
  root = pathlib.Path(settings.root).expanduser()
  if not root.is_dir():
    raise NotFoundError(f"data.root='{root}' is not a directory; {_LAYOUT}")
  directories = _directories(root)
  if not directories:
    raise UserError(f"no class folders in '{root}'; {_LAYOUT}")
  train_root = _find_split(root, directories, settings.train_split, 'train_split')
  evaluation_root = _find_split(root, directories, settings.eval_split, 'eval_split')
  others = [name for name in directories if root / name not in (train_root, evaluation_root)]
  if train_root is not None and others and not _directories(train_root):
    train_root = None  # a class, beside buses and cars
  if train_root is None:
    if evaluation_root is not None and _directories(evaluation_root):
      raise UserError(f"'{root}' has {evaluation_root.name}/ but no {settings.train_split}/; "
                       f'{_LAYOUT}')
    _check_classes(root, directories)
    evaluation_root = None
  scanned = train_root or root
  classes = _directories(scanned)
  if not classes:
    raise UserError(f"no class folders in '{scanned}'; {_LAYOUT}")
  if len(classes) < 2:
    raise UserError(f"'{scanned}' has the single class folder '{classes[0]}'; training needs at "
                     f'least two; {_LAYOUT}')
  paths, labels = _scan(scanned, classes)
  if evaluation_root is None:
    kept, held = stratified_split(labels, settings.validation_fraction, seed)
    labels = np.asarray(labels)
    return Splits(
        FolderSource(scanned, [paths[i] for i in kept], labels[kept]),
        FolderSource(scanned, [paths[i] for i in held], labels[held]), classes,
        note=f"'{root}' has no folder for validation: {len(held)} of its {len(labels)} images are "
             f'held out (data.validation_fraction={settings.validation_fraction}, seed {seed})')
  other = _directories(evaluation_root)
  if other != classes:
    missing = sorted(set(classes) - set(other))
    extra = sorted(set(other) - set(classes))
    parts = [f'{evaluation_root.name}/ lacks {_few(missing)}' if missing else '',
             f'{train_root.name}/ lacks {_few(extra)}' if extra else '']
    raise UserError(f"classes differ below '{root}': {'; '.join(filter(None, parts))}. Both must "
                     'have the same class folders')
  evaluation_paths, evaluation_labels = _scan(evaluation_root, classes)
  return Splits(FolderSource(scanned, paths, labels),
                FolderSource(evaluation_root, evaluation_paths, evaluation_labels), classes,
                train_folder=str(scanned))
