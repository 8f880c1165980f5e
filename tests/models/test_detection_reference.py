"""Whole detectors against torchvision and mmdetection, and the papers' counts."""
import importlib.util
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fcajax import trees
from fcajax.analysis.cost import Counts, count_function
from fcajax.layers.conv import Conv
from fcajax.models.detection.targets import Truth
from fcajax.models.detection.two_stage import frozen_pattern
from fcajax.models.registry import create_model
from fcajax.ops.masks import paste_mask
from fcajax.weights.torch.from_torch import from_torch

SIZE = (256, 320)
SETTINGS = {
    'proposals_before': (120, 120), 'proposals_after': (50, 50), 'detections': 12,
    'rpn_sampling': (None, 1.0), 'box_sampling': (None, 1.0)}
LIBRARIES = {
    'mmdet': {'num_classes': 80}, 'torchvision': {'num_classes': 90, 'rules': 'torchvision'}}
LOSS_NAMES = {'rpn_class': 'loss_rpn_cls', 'rpn_box': 'loss_rpn_bbox', 'box_class': 'loss_cls',
              'box_box': 'loss_bbox', 'mask': 'loss_mask'}


@pytest.fixture(scope='module')
def shared_reference():
  """Values of whole published networks beside the checkout."""
  path = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'reference'
  if not (path / 'detection.npz').is_file():
    pytest.skip('no shared/reference/detection.npz beside the checkout')
  return path


class Reference:
  """One stored model: its settings, values, weights and inputs."""

  def __init__(self, path, library):
    # By its path: other tests import the shorter file of the same name in tests/data.
    spec = importlib.util.spec_from_file_location('reference_weights', path / 'draw_weights.py')
    draw_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw_weights)
    self.name = f'{library}_maskrcnn_resnet50_fpn'
    files = str(path / 'detection.json'), str(path / 'detection.npz')
    self.meta = json.loads((path / 'detection.json').read_text())
    self.values = np.load(files[1])
    self.library = library
    self.model = create_model('mask_rcnn_fpn', **LIBRARIES[library], **SETTINGS)
    self.variables = from_torch(draw_weights.torch_state(*files, self.name), self.model)
    self.inputs = [jnp.asarray(draw_weights.model_input(files[0], self.name, offset))
                   for offset in (0, 1000)]

  def check(self, key, found, tolerance):
    """Compares with the stored array or sample, in standard deviations of it; False if absent."""
    key = f'{self.name}/{key}'
    if key not in self.values:
      return False
    sample = self.meta['samples'].get(key)
    spread = self.values[key].std()
    if sample:
      assert list(found.shape) == sample['shape'], key
      found, spread = found.reshape(-1)[::sample['step']], sample['std']
    np.testing.assert_allclose(found, self.values[key], rtol=0, atol=tolerance * spread,
                               err_msg=key)
    return True


@pytest.fixture(scope='module', params=list(LIBRARIES))
def reference(request, shared_reference):
  return Reference(shared_reference, request.param)


def test_parameters(reference):
  total = sum(leaf.size for leaf in jax.tree.leaves(reference.variables['params']))
  assert total == reference.meta[reference.name]['parameters']
  assert total == {'mmdet': 44396336, 'torchvision': 44454513}[reference.library]


def test_inference_is_the_references(reference):
  model, first = reference.model, reference.library == 'torchvision'
  run = jax.jit(lambda v, x: model.apply(v, x, capture_features=True))
  for prefix, image in zip(('', 'seed_plus_1000/'), reference.inputs):
    found, seen = jax.device_get(run(reference.variables, image))
    compared = 0
    for level, features in enumerate(seen['features']):
      grid = features.shape[:3]
      for key, value in (('features', features), ('rpn_logits', seen['rpn_logits'][level]),
                         ('rpn_deltas', seen['rpn_deltas'][level])):
        compared += reference.check(f'{prefix}{key}{level}', value.reshape(*grid, -1), 1e-4)
    compared += reference.check(f'{prefix}box_logits', seen['box_logits'][0], 1e-4)
    compared += reference.check(
        f'{prefix}box_deltas', seen['box_deltas'][0].reshape(50, -1), 1e-4)
    compared += reference.check(f'{prefix}mask_logits', seen['mask_logits'][0], 1e-4)
    assert compared == (18 if not prefix else 2), compared
    stored = {key: reference.values[f'{reference.name}/{prefix}{key}']
              for key in ('proposals', 'boxes', 'labels')}
    np.testing.assert_allclose(seen['proposals'].boxes[0], stored['proposals'], atol=1e-3 * 320)
    np.testing.assert_allclose(found['boxes'][0], stored['boxes'], atol=1e-3 * 320)
    assert np.abs(found['boxes'][0] - stored['boxes']).max() < 0.01
    np.testing.assert_array_equal(found['labels'][0] + first, stored['labels'])
    assert found['valid'].all()
    if not prefix:
      np.testing.assert_allclose(
          found['scores'][0], reference.values[f'{reference.name}/scores'], atol=1e-4)
      pasted = [(paste_mask(mask, box, SIZE, reference.library) >= 0.5).sum()
                for mask, box in zip(found['masks'][0], found['boxes'][0])]
      np.testing.assert_array_equal(pasted, reference.values[f'{reference.name}/pasted'])


def test_training_is_the_references(reference):
  if reference.library != 'mmdet':
    pytest.skip('losses are stored for mmdetection')
  boxes = reference.values[f'{reference.name}/gt_boxes']
  masks = np.zeros((4, *SIZE), np.uint8)
  for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
    mask[y1 + 3:y2 - 2, x1 + 2:x2 - 4] = 1
  labels = reference.values[f'{reference.name}/gt_labels']
  padded = [np.concatenate([x, np.zeros((3, *x.shape[1:]), x.dtype)])[None]
            for x in (boxes, labels, masks)]
  truth = Truth(jnp.asarray(padded[0]), jnp.asarray(padded[1]), jnp.arange(7)[None] < 4,
                masks=jnp.asarray(padded[2]))
  run = jax.jit(lambda v, x: reference.model.apply(
      v, x, None, truth, train=True, capture_features=True, mutable=['batch_stats'],
      rngs={'sampler': jax.random.key(0)})[0])
  meta = reference.meta[reference.name]
  for key, image in zip(('losses', 'losses_seed_plus_1000'), reference.inputs):
    losses, seen = jax.device_get(run(reference.variables, image))
    for name, theirs in LOSS_NAMES.items():
      np.testing.assert_allclose(losses[name], meta[key][theirs], rtol=2e-6, err_msg=name)
    if key == 'losses':
      np.testing.assert_allclose(
          seen['proposals'].boxes[0], reference.values[f'{reference.name}/train_proposals'],
          atol=1e-3)


def published_macs(model, size):
  """Multiply-adds as the FcaNet paper counts them, with 1,000 proposals and 100 masks.

  Of convolutions and matrices; two for every value that a batch norm gives, one for every value
  of a ReLU, bias or sum of an attention's squeeze. RoIAlign, the transposed convolution and the
  mask logits are left out.
  """
  extra = []

  def intercept(call, args, kwargs, context):
    out = call(*args, **kwargs)
    module, values = context.module, getattr(out, 'size', 0)
    if type(module).__name__ == 'BatchNorm' and 'train' in kwargs:
      # Every norm but that of a shortcut is followed by a ReLU.
      extra.append(values * (2 if module.name == 'shortcut_norm' else 3))
    elif isinstance(module, Conv) and module.use_bias:
      extra.append(values * (2 if module.name.startswith('conv') else 1))
    elif module.name == 'attention' and context.method_name == '__call__':
      extra.append(values)
    return out

  def body(self, x):
    self._propose_on(self._pyramid(x, False, 1)[0])
    self.box_head(jnp.zeros((1000, 7, 7, 256)))

  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  variables = jax.eval_shape(lambda k, x: model.init(k, x), jax.random.key(0), image)
  def run(v, x):
    with nn.intercept_methods(intercept):
      model.apply(v, x, method=body)
  macs = sum(count_function(run, variables, image).values(), Counts()).macs + sum(extra)
  if model.masks:
    cells = 100 * 14 * 14 * 256
    # Four convolutions with bias and ReLU, and the ReLU behind the transposed one.
    macs += 4 * cells * (9 * 256 + 2) + 4 * cells
  return macs


@pytest.mark.parametrize('name', [
    'faster_rcnn/resnet50', 'faster_rcnn/fcanet50', 'faster_rcnn/senet101', 'mask_rcnn/fcanet50'])
def test_counts_are_the_papers(name, shared_reference):
  facts = json.loads((shared_reference / 'facts_tasks.json').read_text())
  rows = facts['detection']['fcanet_paper_table3_box_AP']['rows']
  kind, backbone = name.split('/')
  prefix = {'senet': 'se_', 'fcanet': 'fca_'}.get(backbone.rstrip('0123456789'), '')
  model = create_model(f'{kind}_fpn', num_classes=80,
                       backbone=f'{prefix}resnet{backbone.lstrip("acefnrst")}')
  image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  params = jax.eval_shape(lambda k, x: model.init(k, x), jax.random.key(0), image)['params']
  count = sum(leaf.size for name, leaf in trees.by_name(params).items()
              if not re.search(frozen_pattern(model), name))
  assert round(count / 1e6, 2) == rows[name][0]
  macs = published_macs(model, (797, 1331))
  # The paper cuts its digits off: 261.816 is printed as 261.81.
  assert abs(macs / 1e9 - rows[name][1]) < 0.01, macs
