"""SimpleBaseline: sizes, names, and its agreement with the published network."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcajax.analysis import cost
from fcajax.errors import UserError
from fcajax.models.registry import create_model, list_models, option_names
from fcajax.ops import heatmaps
from fcajax.preprocessing.skeleton import COCO
from fcajax.weights import from_torch
from tests.helpers import pose

SAMPLE = jnp.zeros((1, 256, 192, 3))


def shapes(model, x=SAMPLE):
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
  return traverse_util.flatten_dict(dict(variables), sep='/')


@pytest.mark.parametrize('depth, parameters, macs', [
    (50, 33_999_697, 5_426_380_800), (101, 52_991_825, 9_062_842_368),
    (152, 68_635_473, 12_699_303_936)])
def test_published_sizes(depth, parameters, macs):
  found = cost.count(create_model('simple_baseline', backbone=f'resnet{depth}'), (256, 192, 3))
  assert (found.total.parameters, found.total.macs) == (parameters, macs)


@pytest.mark.parametrize('backbone, size', [
    ('ffc_resnet18', (256, 192, 3)), ('fca_resnet18', (384, 288, 3)),
    ('mobilenet_v2', (256, 192, 3)), ('dct_resnet18_s1122', (32, 24, 24))])
def test_any_backbone(backbone, size):
  model = create_model('simple_baseline', backbone=backbone, num_keypoints=5)
  out = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, *size)))[0])
  scale = 2 if size[-1] == 24 else 1 / 4
  assert out.shape == (2, int(size[0] * scale), int(size[1] * scale), 5)


def test_names_of_the_backbone_are_the_classifiers():
  names = shapes(create_model('simple_baseline', backbone='ffc_resnet18'))
  classifier = shapes(create_model('ffc_resnet18'))
  inner = {name.replace('/backbone/', '/'): leaf.shape for name, leaf in names.items()
           if '/backbone/' in name}
  assert inner == {
      name: leaf.shape for name, leaf in classifier.items() if '/head/' not in name}
  own = {name for name in names if '/backbone/' not in name}
  assert {name for name in own if name.startswith('params/')} == {
      'params/head/kernel', 'params/head/bias',
      *(f'params/deconv{i}/kernel' for i in (1, 2, 3)),
      *(f'params/deconv{i}_norm/{leaf}' for i in (1, 2, 3) for leaf in ('scale', 'bias'))}


def test_options_of_the_backbone():
  model = create_model(
      'simple_baseline', backbone='fca_resnet18', backbone_options={'frequencies': 'top8'},
      dtype='bfloat16', deconv_features=[64, 32])
  assert model.backbone.attention_options['frequencies'] == 'top8'
  assert model.dtype == model.backbone.dtype == jnp.bfloat16
  assert model.deconv_features == (64, 32)
  assert {'num_keypoints', 'backbone', 'backbone_options'} <= option_names('simple_baseline')
  assert 'simple_baseline' in list_models()


@pytest.mark.parametrize('options, message', [
    ({'backbone': 'resnte50'}, "unknown model 'resnte50': did you mean 'resnet50'"),
    ({'num_keypoint': 3}, "has no option 'num_keypoint': did you mean 'num_keypoints'"),
    ({'backbone_options': {'ratio': 0.5}}, "resnet50 has no option 'ratio'"),
])
def test_options_that_are_none(options, message):
  with pytest.raises(UserError, match=message):
    create_model('simple_baseline', **options)


def test_a_backbone_with_a_head():
  with pytest.raises(UserError, match='num_classes=0'):
    shapes(create_model('simple_baseline', backbone=create_model('resnet18')))


def test_no_keypoints():
  with pytest.raises(UserError, match='num_keypoints=0 must be at least 1'):
    shapes(create_model('simple_baseline', backbone='resnet18', num_keypoints=0))


@pytest.fixture(scope='module')
def published():
  """Heat maps and features of the published ResNet-50 for two inputs, and for one mirrored."""
  draw = pose.draw_weights()
  files = [str(pose.reference(name)) for name in ('pose.json', 'pose.npz')]
  model = create_model('simple_baseline', backbone='resnet50')
  variables = from_torch(draw.torch_state(*files, 'pose_resnet50'), model)
  first, second = (draw.model_input(files[0], 'pose_resnet50', offset) for offset in (0, 1000))
  x = np.concatenate([first, second, first[:, :, ::-1]])
  return jax.jit(
      lambda v, x: model.apply(v, x, train=False, capture_features=True))(variables, x)


def test_the_published_network(published):
  maps, features = (jax.tree.map(np.asarray, value) for value in published)
  average = np.asarray(
      heatmaps.flip_average(published[0][:2], published[0][4:], COCO.flip_pairs))
  stored = np.load(pose.reference('pose.npz'))
  for name, found, step in (
      ('backbone', features['backbone'][:2], 131), ('heatmaps', maps[:2], 9),
      ('heatmaps_seed_plus_1000', maps[2:4], 9), ('flip_average', average, 9)):
    error = np.abs(found.reshape(-1)[::step] - stored[f'pose_resnet50/{name}']).max()
    assert error < 1e-4 * found.std(), name


def test_what_the_published_network_finds(published, data_dir):
  from fcajax.preprocessing.person_crop import heatmap_to_image
  maps = published[0]
  stored = np.load(pose.reference('pose.npz'))
  points, _ = heatmaps.decode_heatmaps(maps[:2], quarter_pixel=False)
  np.testing.assert_array_equal(
      points[..., 0] + 48 * points[..., 1], stored['pose_resnet50/argmax'])
  average = heatmaps.flip_average(maps[:2], maps[4:], COCO.flip_pairs)
  points, scores = heatmaps.decode_heatmaps(average)
  rows = np.load(data_dir / 'pose_ops.npz')['crops/center_scale'][:2]
  found = heatmap_to_image(np.asarray(points), rows[:, :2], rows[:, 2] * 200, (64, 48))
  np.testing.assert_allclose(found, stored['pose_resnet50/decoded_xy'], atol=1e-3)
  np.testing.assert_allclose(scores, stored['pose_resnet50/decoded_max'], atol=1e-3)
