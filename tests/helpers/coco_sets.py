"""Small sets of images with boxes, in COCO's format."""
import json

import numpy as np
from PIL import Image


def write_images(folder, sizes):
  """Writes noise as 'NAME' of (height, width) for each entry of `sizes`."""
  folder.mkdir(parents=True, exist_ok=True)
  for i, (name, (height, width)) in enumerate(sizes.items()):
    small = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / name)


def square(x, y, side):
  """A polygon."""
  return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(image_id, box, category_id=1, **other):
  return {'id': 1, 'image_id': image_id, 'category_id': category_id, 'bbox': list(box),
          'area': box[2] * box[3], 'iscrowd': 0, **other}


def content(**changes):
  """Two images, a.jpg 40 x 60 and b.jpg 50 x 50 (height x width), two categories, three boxes."""
  return {
      'images': [{'id': 7, 'file_name': 'a.jpg', 'height': 40, 'width': 60},
                 {'id': 9, 'file_name': 'b.jpg', 'height': 50, 'width': 50}],
      'categories': [{'id': 5, 'name': 'dog'}, {'id': 1, 'name': 'cat'}],
      'annotations': [
          annotation(7, (10, 5, 20, 20), 1, segmentation=square(10, 5, 20)),
          annotation(7, (30, 10, 8, 8), 5, segmentation=square(30, 10, 8)),
          annotation(9, (0, 0, 50, 50), 5, segmentation=square(0, 0, 50))],
      **changes}


def write_coco(root, values):
  """Writes a.jpg, b.jpg and the annotations; returns (annotations, images)."""
  write_images(root / 'images', {'a.jpg': (40, 60), 'b.jpg': (50, 50)})
  (root / 'boxes.json').write_text(values if isinstance(values, str) else json.dumps(values))
  return root / 'boxes.json', root / 'images'
