"""Persons a second on one core: the input path of keypoints beside the published transform.

    python -m benchmarks.cpu.keypoints_input --annotations PERSONS.json --images FOLDER

The published transform, rebuilt from its description (Xiao et al. 2018), decodes the whole image,
mirrors it, warps it, normalises it to float32 planes and draws 17 target maps a person on the host.
Here the host decodes the rows that the crop needs and warps once, mirror included; normalisation
and targets are the device's. Both make 256 x 192 crops of the labelled persons of an annotation
file, with the published augmentation. Without a file, one person is drawn on each of eight images
of noise. Times are CPU times, interleaved.
"""
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np

from benchmarks import common
from fcajax.input_pipeline.augment import joints as augment
from fcajax.input_pipeline.keypoints import PersonExamples
from fcajax.input_pipeline.sources.keypoints import AnnotatedPersons
from fcajax.preprocessing.constants import IMAGENET_MEAN, IMAGENET_STD
from fcajax.preprocessing.skeleton import COCO

SHAPE, MAPS, SIGMA = (256, 192), (64, 48), 2


def published(persons, skeleton, index, generator, examples):
  """One person by the published per-person transform."""
  image = cv2.imread(persons.images.path(int(persons.image[index])), cv2.IMREAD_COLOR)
  image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
  points = persons.keypoints[index].copy()
  centre, size = examples.centres[index].copy(), examples.sizes[index]
  change = augment.draw(generator, augment.JointAugmentation())
  if change.mirror:
    width = image.shape[1]
    image = image[:, ::-1]
    points[:, 0] = width - 1 - points[:, 0]
    for a, b in skeleton.flip_pairs:
      points[a], points[b] = points[b].copy(), points[a].copy()
    centre[0] = width - 1 - centre[0]
  still = augment.Draw(change.factor, change.rotation, False)
  matrix = augment.crop_matrix(centre, size[0], image.shape[1], SHAPE, still)
  crop = cv2.warpAffine(image, matrix, SHAPE[::-1], flags=cv2.INTER_LINEAR)
  planes = crop.transpose(2, 0, 1).astype(np.float32) / 255
  planes = (planes - np.float32(IMAGENET_MEAN)[:, None, None]) / np.float32(
      IMAGENET_STD)[:, None, None]
  targets = np.zeros((len(points), *MAPS), np.float32)
  reach = 3 * SIGMA
  grid = np.arange(2 * reach + 1)
  for joint, (x, y, seen) in enumerate(points):
    if seen <= 0:
      continue
    x, y = matrix @ (x, y, 1)
    x, y = (int(v * MAPS[1] / SHAPE[1] + 0.5) for v in (x, y))
    left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
    if left >= MAPS[1] or top >= MAPS[0] or right < 0 or bottom < 0:
      continue
    patch = np.exp(-((grid - reach)**2 + (grid[:, None] - reach)**2) / (2 * SIGMA**2))
    rows, columns = (max(0, top), min(bottom, MAPS[0])), (max(0, left), min(right, MAPS[1]))
    targets[joint, slice(*rows), slice(*columns)] = patch[
        rows[0] - top:rows[1] - top, columns[0] - left:columns[1] - left]
  return planes, targets


def noise_persons(folder, count=8, shape=(480, 640)):
  """Writes images of noise with a person each; returns the annotation file and the folder."""
  generator = np.random.default_rng(0)
  images, annotations = [], []
  for number in range(count):
    name = f'{number}.jpg'
    cv2.imwrite(str(folder / name), generator.integers(0, 256, (*shape, 3), np.uint8))
    images.append({'id': number, 'file_name': name, 'height': shape[0], 'width': shape[1]})
    points = np.column_stack([generator.uniform((100, 60), (300, 420), (17, 2)), np.full(17, 2)])
    annotations.append({
        'id': number, 'image_id': number, 'category_id': 1, 'iscrowd': 0, 'area': 60000.0,
        'bbox': [90.0, 50.0, 220.0, 380.0], 'num_keypoints': 17,
        'keypoints': points.ravel().tolist()})
  skeleton = {'id': 1, 'name': 'person', 'keypoints': list(COCO.names), 'skeleton': []}
  file = folder / 'persons.json'
  file.write_text(json.dumps(
      {'images': images, 'annotations': annotations, 'categories': [skeleton]}))
  return file, folder


def measure(args):
  cv2.setNumThreads(1)
  with tempfile.TemporaryDirectory() as folder:
    if args.annotations is None:
      args.annotations, args.images = noise_persons(pathlib.Path(folder))
    return compare(AnnotatedPersons(args.annotations, args.images), args.repeats)


def compare(source, repeats):
  persons = source.persons(training=True)
  examples = PersonExamples(
      persons, SHAPE, 1.25, source.skeleton.flip_pairs, augment.JointAugmentation())
  slot = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in examples.spec(0).items()}

  def ours(index, generator):
    examples.load(index, slot, generator)

  def theirs(index, generator):
    published(persons, source.skeleton, index, generator, examples)

  times = {'fcajax': [], 'published': []}
  for repeat in range(repeats + 1):
    for name, run in (('fcajax', ours), ('published', theirs)):
      start = time.process_time()
      for index in range(len(persons)):
        run(index, np.random.default_rng([repeat, index]))
      if repeat:  # the first round fills the caches
        times[name].append(time.process_time() - start)
  sent = {'fcajax': sum(value.nbytes for value in slot.values()),
          'published': 4 * (3 * SHAPE[0] * SHAPE[1] + 17 * MAPS[0] * MAPS[1])}
  rows = {name: {'persons_per_second_and_core': round(len(persons) / statistics.median(values), 1),
                 'bytes_per_person': sent[name]} for name, values in times.items()}
  return {'persons': len(persons), 'repeats': repeats, 'rows': rows}


def show(results):
  print(f'\n{results["persons"]} persons, one core\n')
  print(common.markdown(['input path', 'persons/s', 'bytes a person'], [
      [name, f'{row["persons_per_second_and_core"]:.0f}', f'{row["bytes_per_person"]:,}']
      for name, row in results['rows'].items()]))


def main(argv=None):
  common.run('benchmarks.cpu.keypoints_input', __doc__, measure, show, argv=argv, options={
      '--annotations': {'help': "persons with keypoints, in COCO's format"},
      '--images': {'help': 'folder of the images'},
      '--repeats': {'type': int, 'default': 5},
  }, small={'repeats': 1})


if __name__ == '__main__':
  main()
