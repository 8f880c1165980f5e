"""Reference values of keypoints, and small files of annotated persons."""
import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / 'shared'
SIZE = (256, 192)
MAP = (64, 48)
NAMES = ('nose', 'left_hand', 'right_hand')


def reference(name):
  """The path of a file of reference values beside the checkout; skips the test without it."""
  path = SHARED / 'reference' / name
  if not path.is_file():
    pytest.skip(f'no reference values at shared/reference/{name} beside the checkout')
  return path


def draw_weights():
  """The module that draws the weights of whole reference models."""
  spec = importlib.util.spec_from_file_location('draw_weights', reference('draw_weights.py'))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def person(image_id, box, keypoints, **values):
  return {'image_id': image_id, 'category_id': 1, 'bbox': list(box), 'iscrowd': 0,
          'area': box[2] * box[3], 'keypoints': np.ravel(keypoints).tolist(), **values}


def annotations(persons, images=2, names=NAMES, **category):
  """The content of an annotation file over images of 60 x 80 pixels."""
  return {
      'images': [{'id': 10 + i, 'file_name': f'{i}.png', 'height': 60, 'width': 80}
                 for i in range(images)],
      'annotations': [{'id': i, **row} for i, row in enumerate(persons)],
      'categories': [{'id': 1, 'name': 'person', 'keypoints': list(names), **category}]}


def write(folder, content, name='persons.json', images=True):
  """Writes an annotation file and its images; returns the paths of both."""
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / name
  path.write_text(json.dumps(content))
  for i, image in enumerate(content['images'] if images else ()):
    noise = np.random.default_rng(i).integers(0, 256, (image['height'], image['width'], 3))
    Image.fromarray(noise.astype(np.uint8)).save(folder / image['file_name'])
  return path, folder
