"""Networks as backbones: feature maps by stage, pooled features, and what describes them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from fcajax.models.backbones.resnet import ResNet
from fcajax.models.registry import BACKBONES, create_model, feature_info
from fcajax.ops.convolution import force_lowering

# Small networks of every family, and the shape of an input that they take.
SMALL = {
    'resnet18': ({'stage_sizes': (1, 1, 1, 1), 'width': 8}, (1, 64, 96, 3)),
    'resnet20': ({'stage_sizes': (1, 1, 1), 'width': 8}, (1, 32, 48, 3)),
    'resnext50_32x4d': ({'stage_sizes': (1, 1, 1, 1), 'output_stride': 16}, (1, 64, 96, 3)),
    'ffc_resnet18': ({'stage_sizes': (1, 1, 1, 1), 'width': 8}, (1, 64, 96, 3)),
    'mobilenet_v2': ({}, (1, 64, 96, 3)),
    'dct_resnet18': ({'stage_sizes': (1, 1, 1, 1), 'width': 8}, (1, 8, 16, 24)),
    'dct_resnet18_s1122': ({'stage_sizes': (1, 1, 1, 1), 'width': 8}, (1, 8, 16, 24)),
    'dct_ffc_resnet18': ({'stage_sizes': (1, 1, 1, 1), 'width': 8}, (1, 16, 32, 24)),
    'dct_mobilenet_v2': ({'gate': True}, (1, 16, 32, 24)),
}


def shapes(model, shape, **kwargs):
  """(result, variables) of shapes."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  with force_lowering('conv'):  # the quickest to trace
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, **kwargs), x)


def flat(variables):
  return {path: leaf.shape for path, leaf in
          traverse_util.flatten_dict(dict(variables), sep='/').items()}


@pytest.mark.parametrize('name', SMALL)
def test_feature_maps_are_as_described(name):
  options, shape = SMALL[name]
  whole = create_model(name, num_classes=5, **options)
  infos = feature_info(whole)
  assert infos[0].name == ('stage1' if name.startswith('dct_') else 'stem')
  (logits, captured), variables = shapes(whole, shape, capture_features=True)
  assert logits.shape == (1, 5)
  features, used = shapes(whole.clone(features_only=tuple(info.name for info in infos)), shape)
  pixels = 8 if name.startswith('dct_') else 1  # image pixels a position of the input covers
  for info, feature in zip(infos, features, strict=True):
    assert feature.shape == captured[info.name].shape
    height, width = (side * pixels // info.stride for side in shape[1:3])
    assert feature.shape == (1, height, width, info.channels)
  assert used.keys() <= variables.keys()
  assert flat(used).items() < flat(variables).items()
  left_out = {path.split('/')[1] for path in flat(variables).keys() - flat(used).keys()}
  assert left_out <= {'head', 'head_conv', 'head_norm'}


@pytest.mark.parametrize('name', ['resnet18', 'ffc_resnet18', 'dct_resnet18', 'mobilenet_v2'])
def test_without_classes_the_pooled_features_come_out(name):
  options, shape = SMALL[name]
  whole = create_model(name, num_classes=5, **options)
  (_, captured), variables = shapes(whole, shape, capture_features=True)
  pooled, used = shapes(create_model(name, num_classes=0, **options), shape)
  assert pooled.shape == captured['pre_logits'].shape and pooled.dtype == jnp.float32
  missing = flat(variables).keys() - flat(used).keys()
  assert missing == {'params/head/kernel', 'params/head/bias'}


def test_values_and_order_are_those_of_the_classifier(key):
  x = jax.random.normal(key, (2, 8, 8, 3))
  whole = ResNet((1, 1), width=4, num_classes=3, block='basic', stem='cifar')

  @jax.jit
  def run(key):
    variables = whole.init(key, x)
    _, captured = whole.apply(variables, x, capture_features=True)
    chosen = [whole.clone(features_only=choice).apply(variables, x)
              for choice in ((2, 'stem'), ('stage2', 0))]
    return captured, chosen, whole.clone(num_classes=0).apply(variables, x)
  captured, chosen, pooled = run(jax.random.key(0, impl='unsafe_rbg'))  # quick to compile
  for deep, stem in chosen:
    np.testing.assert_allclose(deep, captured['stage2'], rtol=1e-6)
    np.testing.assert_allclose(stem, captured['stem'], rtol=1e-6)
  np.testing.assert_allclose(pooled, captured['stage2'].mean((1, 2)), rtol=1e-5)


def test_later_stages_are_left_out():
  _, variables = shapes(create_model('resnet50', features_only=[1, 2]), (1, 64, 64, 3))
  assert set(variables['params']) == {'stem_conv', 'stem_norm', 'stage1', 'stage2'}


def test_described_by_name():
  assert feature_info('resnet50') == (
      ('stem', 64, 2), ('stage1', 256, 4), ('stage2', 512, 8), ('stage3', 1024, 16),
      ('stage4', 2048, 32))
  chosen = feature_info('fca_resnet50', features_only=(2, 3, 4), output_stride=16)
  assert [tuple(info) for info in chosen] == [
      ('stage2', 512, 8), ('stage3', 1024, 16), ('stage4', 2048, 16)]
  assert [info.stride for info in feature_info('dct_resnet50')] == [8, 16, 32, 64]
  assert [info.stride for info in feature_info('dct_resnet50_s1122')] == [8, 8, 16, 32]
  assert [info.channels for info in feature_info('mobilenet_v2')] == [
      32, 16, 24, 32, 64, 96, 160, 320]
  for name in BACKBONES:
    assert feature_info(name)


@pytest.mark.parametrize('choice, message', [
    ((5,), r'5 is not one of stem, stage1, .*stage4, or 0, 1, 2, 3, 4'),
    (('stage9',), "'stage9' is not one of"),
    ((1, 'stage1'), 'names stage1 twice'),
    ((), 'is empty; choose some of stem'),
])
def test_a_choice_that_the_network_does_not_have(choice, message):
  with pytest.raises(ValueError, match=f'features_only.*{message}'):
    feature_info('resnet18', features_only=choice)


def test_coefficient_networks_have_no_stem():
  with pytest.raises(ValueError, match='0 is not one of stage1'):
    feature_info('dct_resnet18', features_only=(0, 4))


def test_a_network_without_stages():
  with pytest.raises(ValueError, match='Dense has no method feature_info'):
    feature_info(nn.Dense(3))
