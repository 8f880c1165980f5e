"""The keypoints task: its steps, its evaluation, pictures and predictions."""
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from fcajax.analysis import draw_keypoints
from fcajax.errors import UserError
from fcajax.input_pipeline.keypoints import KeypointSettings, load_data_set
from fcajax.ops import heatmaps
from fcajax.preprocessing.decode import decode_image
from fcajax.preprocessing.skeleton import COCO, Skeleton
from fcajax.tasks import keypoint_evaluation as evaluation
from fcajax.tasks.keypoints import KeypointOptions, Keypoints
from tests.helpers import pose

POINTS = [[30, 20, 2], [20, 25, 1], [40, 25, 2]]
BOXES = ([15, 10, 30, 40], [20, 12, 36, 44])
SHAPE, MAPS = (64, 48), (16, 12)


class Oracle(nn.Module):
  """Draws the targets of joints that are written into the first row of the crop."""

  num_keypoints: int = 3

  @nn.compact
  def __call__(self, x, train=False):
    self.param('unused', nn.initializers.zeros_init(), (1,))
    return jnp.zeros((len(x), *MAPS, self.num_keypoints)) + jnp.mean(x) * 0


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('persons')
  rows = [pose.person(10, BOXES[0], POINTS), pose.person(11, BOXES[1], POINTS)]
  pose.write(folder, pose.annotations(rows, sigmas=[0.05] * 3, skeleton=[[1, 2], [1, 3]]))
  settings = KeypointSettings(
      root=str(folder), train_annotations='persons.json', train_images='.',
      eval_annotations='persons.json', eval_images='.', image_size=SHAPE)
  opened = load_data_set(settings, 0)
  return types.SimpleNamespace(
      data_set=opened, class_names=opened.class_names, preprocessing=opened.preprocessing,
      device_augment=None, num_train=2, num_evaluation=2, train_iterator=iter,
      evaluation_batches=iter, corrupt_files=list)


def make_config(**options):
  return ConfigDict({'dtype': 'float32', 'keypoints': options, 'data': {'padding': 1.25}})


def batch_of(data, count=2):
  examples = data.data_set.evaluation
  slots = [{name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in examples.spec(0).items()}
           for _ in range(count)]
  for index, slot in enumerate(slots[:len(examples)]):
    examples.load(index, slot, None)
  stacked = {name: np.stack([slot[name] for slot in slots]) for name in slots[0]}
  return stacked | {'mask': (np.arange(count) < len(examples)).astype(np.float32)}


def perfect_maps(batch):
  target, _ = heatmaps.heatmap_targets(
      batch['joints'], batch['visible'], image_size=SHAPE, heatmap_size=MAPS, sigma=1.0)
  return target


def test_the_loss_of_perfect_maps_is_0(data):
  task, batch = Keypoints(make_config(sigma=1.0), data), batch_of(data)
  losses, metrics = task.loss(perfect_maps(batch), batch)
  assert losses.tolist() == [0, 0]
  assert metrics['found'].total == metrics['found'].weight == 6
  losses, metrics = task.loss(jnp.zeros((2, *MAPS, 3)), batch)
  assert (losses > 0).all() and metrics['found'].total == 0


def test_evaluation_from_maps_to_metrics(data, tmp_path):
  task, batch = Keypoints(make_config(sigma=1.0), data), batch_of(data, 3)
  prepared = task.prepare(None, batch, False)
  assert prepared['image'].shape == (6, *SHAPE, 3)
  maps = perfect_maps(batch)
  # Mirrored crops give maps that flip_average moves back: first moved to the left, then mirrored.
  left = jnp.concatenate([maps[:, :, 1:], maps[:, :, -1:]], axis=2)
  mirrored = heatmaps.flip_back(left, task.skeleton.flip_pairs)
  sums, rows = task.evaluate(jnp.concatenate([maps, mirrored]), prepared)
  assert sums['loss'].count == 2
  collector = task.collector(pictures=True)
  kept = collector.keep(batch)
  collector.add(kept, jax.tree.map(np.asarray, rows))
  metrics = collector.metrics({'loss': 0.5})
  assert metrics['loss'] == 0.5 and metrics['PCK'] == metrics['AP50'] == 1
  assert metrics['AP'] > 0.5  # a pixel of the maps is a tenth of these persons
  assert task.best.score(metrics) == metrics['AP']
  files = collector.draw(tmp_path)
  assert [file.name for file in files] == ['keypoints.json', 'predictions.png']
  results = json.loads(files[0].read_text())
  assert [row['image_id'] for row in results] == [10, 11]
  np.testing.assert_allclose(
      np.reshape(results[0]['keypoints'], (3, 3))[:, :2], np.array(POINTS)[:, :2], atol=2)


def test_without_sigmas_pck_is_best(data):
  bare = types.SimpleNamespace(**vars(data))
  persons = data.data_set.persons
  skeleton = Skeleton(persons.skeleton.names)
  bare.data_set = types.SimpleNamespace(
      persons=evaluation.EvaluationPersons(**{**vars(persons), 'skeleton': skeleton}))
  task = Keypoints(make_config(), bare)
  assert task.best.name == 'PCK'
  found = evaluation.FoundPersons(
      np.arange(2), persons.keypoints.astype(float), np.ones(2))
  assert evaluation.judge(task.persons, found) == {'PCK': 1.0}


def test_repeated_persons_are_left_out(data):
  persons = data.data_set.persons
  keypoints = np.repeat(persons.keypoints[:1], 3, axis=0)
  keypoints[2, :, :2] += 30
  found = evaluation.FoundPersons(np.zeros(3, int), keypoints, np.array([0.5, 0.9, 0.3]))
  kept = evaluation.suppress(persons, found)
  assert kept.scores.tolist() == [0.9, 0.3]


@pytest.mark.parametrize('options, message', [
    ({'sigma': 0.0}, 'keypoints.sigma=0'), ({'nms_threshold': 2.0}, 'keypoints.nms_threshold=2'),
    ({'sigm': 1.0}, "unknown key keypoints.sigm: did you mean 'sigma'")])
def test_options_out_of_range(options, message):
  with pytest.raises(UserError, match=message):
    KeypointOptions.from_config(options)


def opened_network(data):
  model = Oracle()
  x = jnp.zeros((1, *SHAPE, 3))
  return types.SimpleNamespace(
      model=model, variables=model.init(jax.random.key(0), x), preprocessing=data.preprocessing,
      metadata={'skeleton': data.data_set.persons.skeleton.to_dict()})


def test_predictions_of_files(data, tmp_path):
  opened, files = opened_network(data), [pathlib.Path(f) for f in data.data_set.persons.files]
  found = list(Keypoints.predict(opened, files))
  assert [len(each.scores) for each in found] == [1, 1]
  assert found[0].to_dict()['persons'][0]['box'] == [0, 0, 80, 60]
  boxes = [{'file_name': '0.png', 'bbox': box, 'score': 0.5} for box in BOXES]
  (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
  found = list(Keypoints.predict(opened, files, boxes=str(tmp_path / 'boxes.json'), batch_size=1))
  assert [len(each.scores) for each in found] == [2, 0]
  assert found[1].text() == 'no person' and found[0].draw().shape == (60, 80, 3)
  (tmp_path / 'boxes.json').write_text('{"a": 1}')
  with pytest.raises(UserError, match='is not a list of objects'):
    list(Keypoints.predict(opened, files, boxes=str(tmp_path / 'boxes.json')))


def test_drawing(tmp_path):
  image = np.zeros((60, 80, 3), np.uint8)
  person = np.concatenate([np.random.default_rng(0).uniform(5, 50, (17, 2)), np.ones((17, 1))], 1)
  drawn = draw_keypoints.draw_skeletons(image, person[None], COCO)
  assert not image.any() and drawn.any()
  person[:, 2] = 0.1
  assert not draw_keypoints.draw_skeletons(image, person[None], COCO).any()
  colors = draw_keypoints.joint_colors(COCO)
  assert colors[1] == colors[5] and colors[2] == colors[6] and len({*colors}) == 3
  draw_keypoints.draw_grid(tmp_path / 'grid.png', [image] * 5, list('abcde'), 'title')
  black = (decode_image(tmp_path / 'grid.png') < 20).all(axis=-1)
  assert 0.3 < black.mean() < 0.8
