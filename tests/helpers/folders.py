"""Folders of small images, and pipelines over them, for the tests of the input pipeline."""
import numpy as np
from PIL import Image

from fcajax import input_pipeline

CLASSES = ('ant', 'bee', 'cat')


def write_image(path, value, size=(40, 30)):
  path.parent.mkdir(parents=True, exist_ok=True)
  generator = np.random.default_rng(value)
  small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
  Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


def make_folder(root, train=6, validation=3, splits=('train', 'val')):
  """A folder of noise; every image differs from every other."""
  for s, (split, count) in enumerate(zip(splits, (train, validation))):
    for c, name in enumerate(CLASSES):
      for i in range(count):
        write_image(root / split / name / f'{i}.{"png" if i % 2 else "jpg"}',
                    1000 * s + 100 * c + i, (40 + i, 30 + c))
  return root


def create(data_config, *, batch_size=4, eval_batch_size=4, seed=0, process=(0, 1)):
  return input_pipeline.create(data_config, batch_size=batch_size, eval_batch_size=eval_batch_size,
                               seed=seed, process_index=process[0], process_count=process[1])


def folder_config(root, **values):
  return {'source': 'folder', 'root': str(root), 'image_size': 24, **values}


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def assert_same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])
