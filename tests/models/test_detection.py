"""Two-stage detectors: static shapes, frozen parts, rules, coefficients; small and random."""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcajax import trees
from fcajax.errors import UserError
from fcajax.models.detection.rules import RULES, resolve_rules
from fcajax.models.detection.two_stage import LOSSES, frozen_pattern
from fcajax.models.necks.fpn import FeaturePyramid
from fcajax.models.registry import create_model, list_models
from fcajax.ops.matching import Assigner
from tests.helpers.detection import load_operations
from tests.helpers.detectors import TINY, draw_variables, tiny_batch, tiny_detector
from tests.helpers.unchecked import unchecked


# Everything is an argument: XLA would compute a network of constants while it compiles.
@functools.partial(jax.jit, static_argnums=0)
def losses_of(model, variables, batch):
  images, sizes, truth = batch
  return model.apply(
      variables, images, sizes, truth, train=True, rngs={'sampler': jax.random.key(1)},
      mutable=['batch_stats'])


@functools.partial(jax.jit, static_argnums=0)
def detections_of(model, variables, images, sizes=None):
  return model.apply(variables, images, sizes, capture_features=True)


@pytest.fixture(scope='module')
def trained():
  """A Mask R-CNN with frozen statistics: (model, variables, gradient of the sum of its losses)."""
  model = tiny_detector(norm='frozen', frozen_stages=1)
  batch = tiny_batch()
  variables = draw_variables(model, batch[0])

  def loss(params, stats, batch):
    losses, updates = losses_of(model, {'params': params, 'batch_stats': stats}, batch)
    return sum(losses.values()), (losses, updates)
  gradient, (losses, updates) = jax.jit(jax.grad(loss, has_aux=True))(
      variables['params'], variables['batch_stats'], batch)
  return model, variables, gradient, losses, updates


def test_every_loss_is_finite_and_trains_every_part_that_is_not_frozen(trained):
  model, variables, gradient, losses, updates = trained
  assert set(losses) == set(LOSSES)
  assert all(np.isfinite(value) and value > 0 for value in losses.values())
  frozen = frozen_pattern(model)
  for name, leaf in trees.by_name(gradient).items():
    assert bool(jnp.any(leaf != 0)) == (re.search(frozen, name) is None), name
  jax.tree.map(np.testing.assert_array_equal, updates['batch_stats'], variables['batch_stats'])


def test_batch_norm_of_the_batch_leaves_frozen_stages_alone():
  model = tiny_detector('faster_rcnn_fpn', frozen_stages=2)
  batch = tiny_batch()
  variables = draw_variables(model, batch[0])
  _, updates = losses_of(model, variables, batch)
  before, after = variables['batch_stats']['backbone'], updates['batch_stats']['backbone']
  for stage in before:
    same = all(jnp.array_equal(a, b) for a, b in zip(
        jax.tree.leaves(before[stage]), jax.tree.leaves(after[stage])))
    assert same == (stage in ('stem_norm', 'stage1', 'stage2')), stage


def test_varied_images_share_one_program():
  model = tiny_detector()
  variables = draw_variables(model, tiny_batch()[0])
  before = detections_of._cache_size(), losses_of._cache_size()
  for seed in range(20):
    images, sizes, truth = tiny_batch(seed=seed)
    found, _ = detections_of(model, variables, images, sizes)
    assert found['boxes'].shape == (2, 10, 4) and found['masks'].shape == (2, 10, 28, 28)
    limits = np.asarray(sizes)[:, None, [1, 0, 1, 0]]
    assert (np.asarray(found['boxes']) <= limits).all() and (np.asarray(found['boxes']) >= 0).all()
    losses, _ = losses_of(model, variables, (images, sizes, truth))
    assert all(np.isfinite(value) for value in losses.values())
  assert detections_of._cache_size() <= before[0] + 1 and losses_of._cache_size() <= before[1] + 1


def test_an_image_without_objects_has_losses_of_the_background_alone():
  model = tiny_detector()
  images, sizes, truth = tiny_batch()
  variables = draw_variables(model, images)
  empty = truth._replace(valid=jnp.zeros_like(truth.valid))
  losses, _ = losses_of(model, variables, (images, sizes, empty))
  assert losses['rpn_box'] == losses['box_box'] == losses['mask'] == 0
  assert losses['rpn_class'] > 0 and losses['box_class'] > 0


def test_what_stands_in_the_padding_of_the_ground_truth_changes_nothing():
  model = tiny_detector()
  images, sizes, truth = tiny_batch()
  variables = draw_variables(model, images)
  valid = truth.valid
  noise = truth._replace(
      boxes=jnp.where(valid[..., None], truth.boxes, jnp.asarray([3., 2., 40., 30.])),
      labels=jnp.where(valid, truth.labels, 2),
      masks=jnp.where(valid[..., None, None], truth.masks, 1))
  assert not valid.all()
  first, second = (losses_of(model, variables, (images, sizes, t))[0] for t in (truth, noise))
  for name in LOSSES:
    np.testing.assert_array_equal(first[name], second[name])


def test_samples_follow_the_image_and_not_its_place_in_the_batch():
  model = tiny_detector('faster_rcnn_fpn', norm='frozen')
  images, sizes, truth = tiny_batch()
  truth = truth._replace(index=jnp.asarray([7, 9]))
  variables = draw_variables(model, images)
  swapped = jax.tree.map(lambda x: x[::-1], (images, sizes, truth))
  first, second = (losses_of(model, variables, b)[0] for b in ((images, sizes, truth), swapped))
  for name in first:
    np.testing.assert_allclose(first[name], second[name], rtol=1e-4)


@pytest.mark.parametrize('options', [
    {'rules': 'torchvision', 'dtype': 'bfloat16'},
    {'ohem': True, 'rule_options': {'box_beta': 1.0, 'mask_assigner': {
        'positive': 0.6, 'negative': 0.4, 'crowd': 0.5}}}], ids=lambda o: next(iter(o)))
def test_options_train_and_detect(options):
  model = tiny_detector(**options)
  images, sizes, truth = tiny_batch()
  truth = truth._replace(crowd=truth.valid & (jnp.arange(4) == 1))
  variables = draw_variables(model, images)
  losses, _ = losses_of(model, variables, (images, sizes, truth))
  assert all(np.isfinite(v) and v.dtype == jnp.float32 for v in losses.values())
  found, _ = detections_of(model, variables, images, sizes)
  assert found['scores'].dtype == jnp.float32
  assert found['labels'].max() < 3


def test_coefficients_of_twice_the_size_have_the_levels_of_the_image():
  model = create_model('mask_rcnn_fpn', backbone='dct_resnet50', num_classes=80,
                       backbone_options={'coefficients': '64S'})
  x = jax.ShapeDtypeStruct((1, 200, 334, 64), jnp.float32)
  variables = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), x)
  assert variables['params']['backbone']['stage1']['block0']['conv1']['kernel'].shape[2] == 64
  out, seen = jax.eval_shape(lambda v, x: model.apply(v, x, capture_features=True), variables, x)
  # 1600 x 2666 pixels, boxes in 800 x 1336: the maps of an image of 800 x 1333 pixels.
  assert [p.shape[1:3] for p in seen['features']] == [
      (200, 334), (100, 167), (50, 84), (25, 42), (13, 21)]
  assert out['boxes'].shape == (1, 100, 4) and out['masks'].shape == (1, 100, 28, 28)


def test_boxes_on_coefficients_reach_across_the_image():
  model = tiny_detector('faster_rcnn_fpn', backbone='dct_resnet18', backbone_options={
      'coefficients': '24S', 'stage_sizes': (1, 1, 1, 1), 'width': 8})
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 16, 24, 24)), jnp.float32)
  variables = draw_variables(model, x)
  _, seen = detections_of(model, variables, x)
  boxes = seen['proposals'].boxes[0]
  assert 48 < boxes[:, 2].max() <= 96 and 32 < boxes[:, 3].max() <= 64


@pytest.mark.parametrize('backbone, options', [
    ('fca_resnet50', {}), ('ffc_resnet18', {}), ('mobilenet_v2', {}), ('resnext50_32x4d', {})])
def test_backbones_of_the_registry_give_four_levels(backbone, options):
  if backbone not in list_models():
    pytest.skip(f'{backbone} is not in the registry')
  model = create_model('faster_rcnn_fpn', backbone=backbone, backbone_options=options)
  x = jax.ShapeDtypeStruct((1, 256, 320, 3), jnp.float32)
  variables = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), x)
  _, seen = jax.eval_shape(lambda v, x: model.apply(v, x, capture_features=True), variables, x)
  assert [p.shape[1:3] for p in seen['features']] == [(64, 80), (32, 40), (16, 20), (8, 10), (4, 5)]
  assert 'head' not in variables['params']['backbone']


def test_attention_pools_to_the_published_sizes():
  model = create_model('faster_rcnn_fpn', backbone='fca_resnet50')
  assert model.backbone.dct_sizes == (56, 28, 14, 7)


def test_weights_of_a_classifier_have_the_names_of_the_backbone():
  classifier = create_model('resnet18', **TINY)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  own = dict(jax.eval_shape(lambda k, x: classifier.init(k, x), jax.random.key(0), image)['params'])
  del own['head']
  model = tiny_detector()
  params = jax.eval_shape(lambda k, x: model.init(k, x), jax.random.key(0), image)['params']
  assert jax.tree.map(lambda x: x.shape, own) == jax.tree.map(
      lambda x: x.shape, dict(params['backbone']))


def test_the_pyramid_is_the_references(data_dir, monkeypatch):
  monkeypatch.syspath_prepend(str(data_dir))
  from draw_weights import draw
  arrays, settings = load_operations()
  state = {key: draw(key, tuple(shape)) for key, shape in settings['fpn']['weights']}
  params = {}
  for key, value in state.items():
    kind, index, _, leaf = key.split('.')
    name = {'inner_blocks': 'lateral', 'layer_blocks': 'output'}[kind] + index
    params.setdefault(name, {})['kernel' if leaf == 'weight' else 'bias'] = (
        value.transpose(2, 3, 1, 0) if leaf == 'weight' else value)
  inputs = [jnp.asarray(arrays[f'fpn/input{i}']) for i in range(4)]
  outputs = FeaturePyramid(channels=10).apply({'params': params}, inputs)
  for i, output in enumerate(outputs):
    np.testing.assert_allclose(output, arrays[f'fpn/output{i}'], rtol=1e-4, atol=1e-5)


def test_rules_are_resolved_and_named():
  assert resolve_rules('mmdet') is not RULES['torchvision']
  changed = resolve_rules('torchvision', {'sampling_ratio': 0, 'rpn_assigner': (0.6, 0.2)})
  assert changed.sampling_ratio == 0 and changed.rpn_assigner == Assigner(0.6, 0.2)
  assert changed.background == 'first'
  with pytest.raises(UserError, match="rules='detectron' is not one of 'mmdet', 'torchvision'"):
    resolve_rules('detectron')
  with pytest.raises(UserError, match=r"no rule 'algined'.*aligned"):
    resolve_rules('mmdet', {'algined': True})


def test_what_is_missing_is_named():
  images, sizes, truth = tiny_batch()
  model = tiny_detector()
  with pytest.raises(UserError, match=r'needs truth\.masks; use masks=False'):
    jax.eval_shape(lambda x: model.init(
        {'params': jax.random.key(0), 'sampler': jax.random.key(0)}, x, sizes,
        truth._replace(masks=None)), images)
  with unchecked(), pytest.raises(UserError, match="norm='group' is not one of"):
    jax.eval_shape(lambda x: tiny_detector(norm='group').init(jax.random.key(0), x), images)
