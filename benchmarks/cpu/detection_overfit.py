"""Mask R-CNN learns ten images by heart, which shows that every one of its losses works.

    python -m benchmarks.cpu.detection_overfit --root ../shared/data/coco
    python -m benchmarks.cpu.detection_overfit --root COCO --images IMAGES --annotations JSON

ResNet-18 with a feature pyramid of 64 channels starts from random weights and trains on ten images
of COCO train 2017 at 320 pixels (their longer side), without flips, with all 80 classes. AP is of
these ten images, so it says that boxes, classes and masks can be learned and are read out right; it
says nothing about other images. `--workdir` keeps the run, and goes on with one that was stopped;
`--evaluate` also judges the network on a whole annotation file. `--small` draws three images of
rectangles and makes a few updates.
"""
import json
import pathlib
import tempfile
import time

import jax
import numpy as np
from PIL import Image, ImageDraw

from benchmarks import common
from fcajax import input_pipeline
from fcajax.configs import own_boxes
from fcajax.inference.open_model import open_trained
from fcajax.tasks.coco_metrics import ImageDetections, coco_metrics, result_rows
from fcajax.tasks.detection import Detection
from fcajax.train import loop

# Images with one to four objects, all of them larger than 40 pixels at this size.
IMAGES = (525891, 360772, 191381, 188416, 60760, 172123, 286720, 12448, 24577, 418049)


def write_subset(annotations, images, folder):
  """Writes the annotations of some images alone; all categories stay."""
  content = json.loads(pathlib.Path(annotations).read_text())
  kept = set(images)
  subset = {
      'images': [entry for entry in content['images'] if entry['id'] in kept],
      'annotations': [entry for entry in content['annotations'] if entry['image_id'] in kept],
      'categories': content['categories']}
  if len(subset['images']) != len(kept):
    raise SystemExit(f'{annotations} has {len(subset["images"])} of the images {sorted(kept)}')
  path = pathlib.Path(folder) / 'subset.json'
  path.write_text(json.dumps(subset))
  return path


def draw_rectangles(folder, count=3, size=96, seed=0):
  """Writes pictures of one red and one blue rectangle each; returns (annotations, images)."""
  random, folder = np.random.default_rng(seed), pathlib.Path(folder)
  (folder / 'images').mkdir(parents=True, exist_ok=True)
  content = {'images': [], 'annotations': [],
             'categories': [{'id': 1, 'name': 'red'}, {'id': 2, 'name': 'blue'}]}
  for image in range(1, count + 1):
    picture = Image.new('RGB', (size, size), (210, 210, 200))
    content['images'].append({'id': image, 'file_name': f'{image}.png', 'height': size,
                              'width': size})
    for category, color in ((1, (200, 40, 40)), (2, (40, 60, 200))):
      width, height = map(int, random.integers(size // 4, size // 2, 2))
      x = int(random.integers(0, size - width))
      # The red one above, the blue one below, so that none hides the other.
      y = int(random.integers(0, size // 2 - height + 1)) + (category - 1) * size // 2
      ImageDraw.Draw(picture).rectangle((x, y, x + width - 1, y + height - 1), fill=color)
      outline = [x, y, x + width, y, x + width, y + height, x, y + height]
      content['annotations'].append(
          {'id': len(content['annotations']) + 1, 'image_id': image, 'category_id': category,
           'bbox': [x, y, width, height], 'area': width * height, 'iscrowd': 0,
           'segmentation': [outline]})
    picture.save(folder / 'images' / f'{image}.png')
  (folder / 'subset.json').write_text(json.dumps(content))
  return folder / 'subset.json', folder / 'images'


def make_config(args, annotations, images):
  """Returns the config of the run."""
  config = own_boxes.get_config('masks')
  config.data.train_annotations = config.data.eval_annotations = str(annotations)
  config.data.train_images = config.data.eval_images = str(images)
  config.data.short_side = config.data.long_side = args.size
  config.data.bucket_aspects = ()
  config.data.flip = 0.0
  config.data.max_boxes = 20
  config.dtype = 'float32'
  # Batches divide over the devices.
  devices = jax.device_count()
  config.batch_size = config.eval_batch_size = -(-args.batch // devices) * devices
  config.num_steps = args.steps
  config.eval_every_epochs = config.checkpoint.every_epochs = 1e6
  config.checkpoint.every_steps = args.every
  config.log_every_steps = max(1, args.every // 5)
  config.model.backbone = 'resnet18'
  if args.backbone_width:
    config.model.backbone_options = {'stage_sizes': (1, 1, 1, 1), 'width': args.backbone_width}
  config.model.norm = 'sync'
  config.model.frozen_stages = -1
  config.model.update({
      'channels': args.channels, 'proposals_before': (200, 200), 'proposals_after': (100, 100),
      'box_sampling': (32, 0.25)})
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = args.rate
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 10.0
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = min(10.0, args.steps / 4)
  return config


def train(args, workdir):
  """Trains and evaluates on the same images; returns the summary."""
  if args.root:
    root = pathlib.Path(args.root).resolve()
    images = root / args.images
    annotations = write_subset(root / args.annotations, IMAGES, workdir)
  else:
    annotations, images = draw_rectangles(workdir, max(3, jax.device_count()))
  config = make_config(args, annotations.resolve(), images.resolve())
  data = input_pipeline.create(
      config.data, batch_size=config.batch_size, eval_batch_size=config.eval_batch_size, seed=0)
  return loop.train(config, pathlib.Path(workdir) / 'run', data)


def judge(run, annotations, images):
  """Returns COCO's metrics of a trained network on a whole annotation file."""
  truth = json.loads(pathlib.Path(annotations).read_text())
  opened = open_trained(run)
  ids = [entry['id'] for entry in truth['images']]
  files = [pathlib.Path(images) / entry['file_name'] for entry in truth['images']]
  found = [ImageDetections(i, one.boxes, one.scores, one.labels, one.masks) for i, one in zip(
      ids, Detection.predict(opened, files, min_score=0.0, batch_size=5))]
  rows = result_rows(found, opened.metadata['category_ids'])
  return coco_metrics(truth, rows, 'box') | coco_metrics(truth, rows, 'mask')


def measure(args):
  with tempfile.TemporaryDirectory() as temporary:
    workdir = pathlib.Path(args.workdir or temporary)
    workdir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    summary = train(args, workdir)
    results = {
        'images': list(IMAGES) if args.root else 'rectangles', 'size': args.size,
        'batch': args.batch, 'steps': summary['steps'], 'parameters': summary['parameters'],
        'minutes': round((time.perf_counter() - start) / 60, 1),
        'compile_seconds': summary['compile_seconds'],
        'metrics': {name: round(value, 4) for name, value in summary.items()
                    if name.startswith(('box_', 'mask_'))}}
    if args.evaluate:
      start = time.perf_counter()
      metrics = judge(workdir / 'run', *args.evaluate)
      results['whole'] = {'annotations': pathlib.Path(args.evaluate[0]).name,
                          'minutes': round((time.perf_counter() - start) / 60, 1),
                          'metrics': {k: round(v, 4) for k, v in metrics.items()}}
    return results


def show(results):
  print(f'{results["steps"]} steps of {results["batch"]} images in {results["minutes"]} minutes\n')
  rows = [['the training images', results['metrics']]]
  if 'whole' in results:
    rows.append([results['whole']['annotations'], results['whole']['metrics']])
  names = ('box_AP', 'box_AP50', 'mask_AP', 'mask_AP50')
  print(common.markdown(['judged on', *names], [
      [name, *(f'{values[metric]:.3f}' for metric in names)] for name, values in rows], 'lrrrr'))


def main(argv=None):
  common.run('benchmarks.cpu.detection_overfit', __doc__, measure, show, argv=argv, options={
      '--root': {'default': '../shared/data/coco', 'help': 'folder of the two paths below'},
      '--annotations': {'default': 'annotations/instances_train.json'},
      '--images': {'default': 'train'},
      '--steps': {'type': int, 'default': 400},
      '--every': {'type': int, 'default': 50, 'help': 'steps between checkpoints'},
      '--size': {'type': int, 'default': 320},
      '--batch': {'type': int, 'default': 5},
      '--rate': {'type': float, 'default': 5e-4, 'help': 'learning rate'},
      '--channels': {'type': int, 'default': 64, 'help': 'of the pyramid'},
      '--backbone-width': {'type': int, 'default': 0,
                           'help': 'of a tiny backbone in place of ResNet-18'},
      '--workdir': {'help': 'keeps the run'},
      '--evaluate': {'nargs': 2, 'metavar': ('JSON', 'IMAGES'),
                     'help': 'also judges the network on all images of an annotation file'},
  }, small={'root': '', 'steps': 3, 'every': 3, 'size': 96, 'batch': 3, 'channels': 16,
            'backbone_width': 8})


if __name__ == '__main__':
  main()
