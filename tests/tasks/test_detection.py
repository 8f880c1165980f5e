"""The task of detection from annotations to predictions, on rectangles and a tiny Mask R-CNN."""
import functools
import io
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from benchmarks.cpu.detection_overfit import draw_rectangles
from fcajax import input_pipeline
from fcajax.cli import main as cli
from fcajax.configs import own_boxes
from fcajax.errors import UserError
from fcajax.inference.open_model import open_trained
from fcajax.preprocessing.run_lengths import decode_masks
from fcajax.tasks import network, registry
from fcajax.tasks.coco_metrics import METRICS
from fcajax.tasks.detection import Detection
from fcajax.train import loop, parallel
from fcajax.train import plan as plans
from fcajax.weights.merging import start_weights
from fcajax.weights.safetensors_file import save_safetensors
from fcajax.workdir import checkpoints

pytest.importorskip('pycocotools')
STEPS = 4
LOSSES = {'rpn_class', 'rpn_box', 'box_class', 'box_box', 'mask'}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Eight pictures of a red and a blue rectangle, with their annotations."""
  folder = tmp_path_factory.mktemp('rectangles')
  draw_rectangles(folder, count=8, size=64)
  return folder


def make_config(root, **changes):
  """A Mask R-CNN that compiles in seconds; every update sees the same eight images."""
  config = own_boxes.get_config('masks,smoke')
  config.num_steps = STEPS
  config.eval_every_epochs = config.checkpoint.every_epochs = 2.0
  config.data.root = str(root)
  config.data.train_annotations = config.data.eval_annotations = 'subset.json'
  config.data.short_side = config.data.long_side = 64
  config.data.max_boxes = 4
  config.data.flip = 0.0
  config.model.backbone = 'resnet18'
  config.model.backbone_options = ConfigDict({'stage_sizes': (1, 1, 1, 1), 'width': 8})
  config.model.norm = 'sync'
  config.model.frozen_stages = -1
  config.model.update({'proposals_before': (40, 30), 'proposals_after': (30, 20), 'detections': 10,
                       'rpn_sampling': (64, 0.5), 'box_sampling': (16, 0.25)})
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 0.0
  config.optimizer.schedule = 'constant'
  config.detection.per_class = True
  config.update_from_flattened_dict(changes)
  return config


def open_data(config):
  return input_pipeline.create(config.data, batch_size=config.batch_size,
                               eval_batch_size=config.eval_batch_size, seed=config.seed)


def run(config, directory, stream=None):
  stream = stream or io.StringIO()
  return loop.train(config, directory, open_data(config), stream=stream), stream.getvalue()


def variables(directory):
  return checkpoints.restore_variables(directory, 'latest')


@pytest.fixture(scope='module')
def finished(root, tmp_path_factory):
  """(work directory, summary, printed lines) of a few updates on eight devices."""
  directory = tmp_path_factory.mktemp('finished')
  return directory, *run(make_config(root), directory)


@pytest.fixture(scope='module')
def learned(root, tmp_path_factory):
  """(work directory, summary) of a network that knows the eight pictures; one device."""
  directory = tmp_path_factory.mktemp('learned')
  config = make_config(root, num_steps=150, eval_every_epochs=1e6)
  config.checkpoint.every_epochs = 1e6
  with pytest.MonkeyPatch.context() as patch:
    one_device(patch)
    return directory, run(config, directory)[0]


def one_device(patch):
  patch.setattr(
      parallel, 'create', functools.partial(parallel.create, devices=jax.devices()[:1]))


def test_a_run_logs_losses_and_leaves_results(finished):
  directory, summary, out = finished
  rows = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  train = [row for row in rows if row['split'] == 'train']
  assert len(train) == STEPS and all(LOSSES <= row.keys() for row in train)
  for row in train:
    assert row['loss'] == pytest.approx(sum(row[name] for name in LOSSES), rel=1e-5)
  expected = {f'{kind}_{name}' for kind in ('box', 'mask') for name in (*METRICS, 'AP/red')}
  assert expected <= summary.keys() and summary['devices'] == 8
  assert summary['best']['box_AP'] == max(
      row['box_AP'] for row in rows if row['split'] == 'evaluation')
  assert 'box AP' in out and 'of 2 classes (red, blue)' in out
  metadata = checkpoints.read_metadata(directory)
  assert metadata['class_names'] == ['red', 'blue'] and metadata['category_ids'] == [1, 2]
  assert registry.of_metadata(metadata) is Detection
  assert (metadata['resize']['long_side'], metadata['resize']['divisor']) == (64, 32)
  with Image.open(directory / 'predictions.png') as picture:
    assert picture.width > 4 * 400  # two pairs of truth and prediction in a row
  assert isinstance(json.loads((directory / 'detections.json').read_text()), list)


def test_a_stopped_run_equals_the_uninterrupted_one(finished, root, tmp_path):
  class Stopping(io.StringIO):
    def write(self, text):
      if 'evaluation: ' in text:
        os.kill(os.getpid(), signal.SIGTERM)
      return super().write(text)

  summary, _ = run(make_config(root), tmp_path, Stopping())
  assert summary['stopped_by'] == signal.SIGTERM and summary['step'] == 2
  resumed, out = run(make_config(root), tmp_path)
  assert 'after step 2/4' in out and resumed['best'] == finished[1]['best']
  jax.tree.map(np.testing.assert_array_equal, variables(tmp_path), variables(finished[0]))


def test_it_learns_boxes_classes_and_masks(learned):
  _, summary = learned
  assert summary['box_AP50'] > 0.9 and summary['mask_AP50'] > 0.8


def test_other_classes_are_refused_on_resume(finished, root, tmp_path):
  content = json.loads((root / 'subset.json').read_text())
  content['categories'][1]['name'] = 'green'
  (tmp_path / 'other.json').write_text(json.dumps(content))
  config = make_config(root, num_steps=STEPS + 1)
  config.data.train_annotations = config.data.eval_annotations = str(tmp_path / 'other.json')
  with pytest.raises(UserError, match='blue'):
    loop.train(config, finished[0], open_data(config), resume_with_changes=True,
               stream=io.StringIO())


def test_predict_writes_objects_pictures_and_results(learned, root, tmp_path, capsys):
  images = root / 'images'
  arguments = ['predict', str(learned[0]), str(images), '--out', str(tmp_path / 'found')]
  assert cli.main([*arguments, '--json', '--batch-size', '3']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  truth = json.loads((root / 'subset.json').read_text())
  assert [line['image'] for line in lines] == [str(images / f'{i}.png') for i in range(1, 9)]
  matched = 0
  for line, entry in zip(lines, truth['images']):
    for annotation in (a for a in truth['annotations'] if a['image_id'] == entry['id']):
      name = truth['categories'][annotation['category_id'] - 1]['name']
      own = [found for found in line['objects'] if found['class'] == name]
      if own and np.abs(np.subtract(own[0]['box'], annotation['bbox'])).max() < 6:
        matched += 1
        [mask] = decode_masks([own[0]['mask']], (64, 64))
        assert 0.6 < mask.sum() / annotation['area'] < 1.5
  assert matched >= 12
  results = json.loads((tmp_path / 'found' / 'results.json').read_text())
  assert len(results['images']) == 8
  assert {row['category_id'] for row in results['annotations']} == {1, 2}
  with Image.open(tmp_path / 'found' / '1.png') as picture:
    assert picture.size == (64, 64) and len(picture.getcolors(10000)) > 4
  assert cli.main([*arguments[:3], '--min-score', '0.99999']) == 0
  assert 'no object' in capsys.readouterr().out
  assert cli.main([*arguments[:3], '--top', '3']) == 2
  error = capsys.readouterr().err
  assert '--top is not for detection' in error and '--min-score, --batch-size, --out' in error


def test_predictions_equal_the_evaluation(learned, root):
  """Files go the way of the evaluation's images: resized, padded and normalised alike."""
  opened = open_trained(learned[0], 'latest')
  file = root / 'images' / '2.png'
  [found] = Detection.predict(opened, [file], min_score=0.0)
  rows = [row for row in json.loads((learned[0] / 'detections.json').read_text())
          if row['image_id'] == 2]
  assert len(found.scores) == len(rows) > 0
  np.testing.assert_allclose(found.scores, [row['score'] for row in rows], atol=1e-4)
  for box, row in zip(found.boxes, rows):
    np.testing.assert_allclose([*box[:2], *(box[2:] - box[:2])], row['bbox'], atol=0.05)


def test_export_gives_the_same_detections(learned, root, tmp_path):
  pytest.importorskip('flatbuffers')
  output = tmp_path / 'detector.stablehlo'
  assert cli.main(['export', str(learned[0]), str(output), '--platforms', 'cpu']) == 0
  with Image.open(root / 'images' / '1.png') as image:
    pixels = np.asarray(image)[None]
  found = jax.export.deserialize(bytearray(output.read_bytes())).call(
      pixels, np.array([[64, 64]], np.int32))
  opened = open_trained(learned[0])
  [expected] = Detection.predict(opened, [root / 'images' / '1.png'], min_score=0.05)
  count = int(found['valid'].sum())
  assert count == len(expected.scores) and found['masks'].shape == (1, 10, 28, 28)
  np.testing.assert_allclose(found['boxes'][0, :count], expected.boxes, atol=1e-3)
  np.testing.assert_allclose(found['scores'][0, :count], expected.scores, atol=1e-5)


def test_varied_images_compile_a_program_for_each_bucket(tmp_path):
  """Twenty images of twenty sizes: two shapes, so two programs of training, two of evaluation."""
  random = np.random.default_rng(0)
  (tmp_path / 'images').mkdir()
  images, annotations = [], []
  for i in range(1, 21):
    height, width = map(int, random.integers(40, 120, 2))
    Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(
        tmp_path / 'images' / f'{i}.png')
    images.append({'id': i, 'file_name': f'{i}.png', 'height': height, 'width': width})
    annotations += [{'id': 0, 'image_id': i, 'category_id': 1, 'iscrowd': 0, 'area': 400,
                     'bbox': [2 + j, 3, 20, 20]} for j in range(i % 4 + 1)]
  (tmp_path / 'subset.json').write_text(json.dumps({
      'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'one'}]}))
  config = make_config(tmp_path, **{
      'data.short_side': 32, 'data.long_side': 64, 'data.masks': 'none',
      'model.name': 'faster_rcnn_fpn', 'batch_size': 2, 'eval_batch_size': 2})
  data = open_data(config)
  with pytest.MonkeyPatch.context() as patch:
    one_device(patch)
    plan = plans.make(config, tmp_path / 'run', data, Detection)
  programs, state, sums = plan.programs(), None, None
  state = programs.initialize()
  iterator = data.train_iterator()
  for _ in range(10):
    state, sums, _ = programs.train(state, sums, plan.strategy.place_batch(next(iterator)))
  iterator.close()
  seen = 0
  for batch in data.evaluation_batches():
    seen += int(batch['mask'].sum())
    programs.evaluate(state.variables(), None, plan.strategy.place_batch(batch))
  assert seen == 20 and np.isfinite(programs.fetch(sums)['loss'])
  assert sorted(name for name, _ in programs._compiled) == ['evaluate'] * 2 + ['train'] * 2


@pytest.mark.parametrize('changes, message', [
    ({'detection': ConfigDict({'per_clas': True})},
     "unknown key detection.per_clas: did you mean 'per_class'"),
    ({'detection.picture_score': 2.0}, 'must lie in 0 to 1'),
    ({'data.masks': 'none'}, "trains on masks, which config.data.masks='none' leaves out"),
])
def test_config_errors(root, changes, message):
  config = make_config(root)
  for key, value in changes.items():
    if key == 'detection':
      config.detection = value
    else:
      config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message):
    plans.check_config(config)


def test_networks_on_coefficients_know_the_size_of_their_cells(root):
  config = make_config(root, **{'data.representation': 'dct', 'data.enlarge': 2,
                                'data.normalization': 'published'})
  config.data.coefficients, config.data.chroma = '24S', 'full'
  config.model.backbone = 'dct_resnet50_s1122'
  task = Detection(config, open_data(config))
  model = task.adapt_model(task.create_model(config), config, 'devices')
  assert model.pixels_per_cell == 4 and model.axis_name == 'devices'
  assert model.backbone.axis_name == 'devices' and model.backbone.num_classes == 0
  frozen = model.clone(norm='frozen')
  assert task.adapt_model(
      frozen.clone(backbone=frozen.backbone.clone(axis_name=None)), config, 'devices'
  ).backbone.axis_name is None
  assert network.create_model(config, **task.model_arguments()).pixels_per_cell == 4


@pytest.mark.parametrize('name', ['coco_faster_rcnn', 'coco_mask_rcnn', 'own_boxes'])
def test_smoke_configs_run_as_a_user_types_them(name, root, tmp_path):
  paths = ['train_annotations=subset.json', 'eval_annotations=subset.json', 'train_images=images',
           'eval_images=images']
  done = subprocess.run([
      sys.executable, '-m', 'fcajax', 'train', '--config', f'{name}:smoke', '--workdir',
      str(tmp_path), f'--config.data.root={root}', *(f'--config.data.{path}' for path in paths),
      '--config.num_steps=1'], capture_output=True, text=True, timeout=600, check=False,
      env={**os.environ, 'XLA_FLAGS': ''})
  assert done.returncode == 0, done.stderr
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['finished'] and 'box_AP' in summary
  assert ('mask_AP' in summary) == (name == 'coco_mask_rcnn')


def test_frozen_stages_are_kept_from_the_optimiser(root):
  config = make_config(root)
  task = Detection(config, open_data(config))
  model = task.create_model(config)
  assert task.freeze(config, model) == ''
  config.freeze = '^rpn/'
  assert task.freeze(config, model.clone(frozen_stages=2)) == '^rpn/|^backbone/(stem|stage[1-2]/)'


def test_a_classifier_starts_the_backbone(tmp_path):
  """Its head is left out, and the detector's own parts are named as new."""
  def trees(scale, **more):
    return {'params': {'stem_conv': {'kernel': np.full((1, 1, 3, 4), scale, np.float32)}, **more},
            'batch_stats': {'stem_norm': {'mean': np.full(4, scale, np.float32)}}}

  classifier = trees(2.0, head={'kernel': np.ones((4, 10), np.float32)})
  save_safetensors(tmp_path / 'classifier.safetensors', classifier, {
      'model': {'name': 'resnet18', 'num_classes': 10, 'overrides': {}}, 'class_names': [],
      'preprocessing': {}})
  inside = trees(0.0)
  fresh = {'params': {'backbone': inside['params'], 'rpn': {'bias': np.zeros(3, np.float32)}},
           'batch_stats': {'backbone': inside['batch_stats']}}
  merged, new = start_weights(fresh, tmp_path / 'classifier.safetensors')
  assert jax.tree.structure(merged) == jax.tree.structure(fresh) and new == ['params/rpn']
  assert merged['params']['backbone']['stem_conv']['kernel'].mean() == 2
  assert merged['batch_stats']['backbone']['stem_norm']['mean'].mean() == 2
  inside['params']['stem_conv']['kernel'] = np.zeros((1, 1, 3, 5), np.float32)
  with pytest.raises(UserError, match='stem_conv/kernel'):
    start_weights(fresh, tmp_path / 'classifier.safetensors')


def test_a_detector_starts_one_with_other_classes_and_a_mask_head(tmp_path):
  def trees(classes, **more):
    return {'params': {
        'backbone': {'stem_conv': {'kernel': np.full((1, 1, 3, 4), classes, np.float32)}},
        'box_head': {'logits': {'bias': np.full(classes + 1, classes, np.float32)}}, **more}}

  save_safetensors(tmp_path / 'detector.safetensors', trees(3), {
      'model': {'name': 'faster_rcnn_fpn', 'num_classes': 3, 'overrides': {}}, 'class_names': [],
      'preprocessing': {}})
  fresh = trees(5, mask_head={'conv1': {'bias': np.zeros(4, np.float32)}})
  merged, new = start_weights(fresh, tmp_path / 'detector.safetensors')
  assert set(new) == {'params/box_head/logits/bias', 'params/mask_head/conv1/bias'}
  assert merged['params']['backbone']['stem_conv']['kernel'].mean() == 3
  assert merged['params']['box_head']['logits']['bias'].shape == (6,)
