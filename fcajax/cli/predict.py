"""`fcajax predict MODEL IMAGE...`: what a trained network says about images.

    fcajax predict runs/flowers photos --top 3          # classes
    fcajax predict runs/boxes photos --out found        # objects, and pictures of them
    fcajax predict runs/pose photo.jpg --boxes persons.json --out found
"""
import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

from fcajax import files as whole_files
from fcajax import tasks
from fcajax.cli.arguments import add_trained_model, positive_int
from fcajax.errors import UserError, writing
from fcajax.inference.open_model import open_trained
from fcajax.inference.read_images import find_images
from fcajax.tasks import Prediction, Task

# Those that only some tasks take, with what argparse needs.
_OPTIONS = {
    'top': {'type': positive_int, 'help': 'classes shown for each image (default 5)'},
    'min_score': {'type': float, 'metavar': 'SCORE',
                  'help': 'leave out objects with a lower score, 0 to 1 (default 0.5)'},
    'boxes': {'metavar': 'FILE',
              'help': "JSON of person boxes, a list of {'file_name', 'bbox': [x, y, width, "
                      "height], 'score'} (default: each image is one person)"},
    'batch_size': {'type': positive_int, 'help': 'images (of keypoints: persons) at a time'},
    'out': {'metavar': 'DIR', 'help': "write a picture for each image, and all results in COCO's "
                                      'format as results.json, into this folder'},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_trained_model(parser)
  parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files or folders')
  parser.add_argument('--json', action='store_true', help='one JSON object a line')
  for name, keywords in _OPTIONS.items():
    parser.add_argument(_flag(name), **keywords)


def run(args: argparse.Namespace) -> None:
  files = find_images(args.images)
  opened = open_trained(args.model)
  task = tasks.of_metadata(opened.metadata)
  options = _options(args, task)
  out = options.pop('out', None)
  folder = _Folder(out, files) if out else None
  for prediction in task.predict(opened, files, **options):
    if folder:
      folder.add(prediction)
    line = json.dumps(prediction.to_dict()) if args.json else (
        f'{prediction.file}: {prediction.text()}')
    print(line)
  if folder:
    folder.finish()


def _flag(name: str) -> str:
  return '--' + name.replace('_', '-')


def _options(args: argparse.Namespace, task: type[Task]) -> dict[str, Any]:
  """Returns the options that were given; refuses those that the task does not take."""
  given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
  for name in given:
    if name not in task.predict_options:
      taken = ', '.join(_flag(option) for option in task.predict_options if option in _OPTIONS)
      raise UserError(f'{_flag(name)} is not for {task.name}, which {args.model} was trained for; '
                      f'its options are {taken}')
  if not 0 <= given.get('min_score', 0) <= 1:
    raise UserError(f'--min-score {args.min_score} must lie in 0 to 1')
  if 'named' in task.predict_options:
    given['named'] = args.images
  return given


class _Folder:
  """Pictures of predictions, and their results in COCO's format."""

  def __init__(self, path: str, files: Sequence[pathlib.Path]):
    self._path = pathlib.Path(path)
    with writing(self._path):
      self._path.mkdir(parents=True, exist_ok=True)
    self._ids = {file: i for i, file in enumerate(files, 1)}
    self._images, self._rows, self._names = [], [], set()

  def add(self, prediction: Prediction) -> None:
    identity = self._ids[prediction.file]
    # Files of one name can come from two folders.
    name = prediction.file.stem
    name = f'{name}.png' if name not in self._names else f'{name}_{identity}.png'
    self._names.add(name.removesuffix('.png'))
    self._images.append({'id': identity, 'file_name': str(prediction.file)})
    self._rows += prediction.results(identity)
    with writing(self._path / name):
      Image.fromarray(prediction.draw()).save(self._path / name)

  def finish(self) -> None:
    path = self._path / 'results.json'
    with writing(path):
      whole_files.write_text(
          path, json.dumps({'images': self._images, 'annotations': self._rows}) + '\n')
