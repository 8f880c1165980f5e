"""Models by name, their options, and what a mistyped name is told."""
import functools
import json

import jax
import jax.numpy as jnp
import pytest

import fcajax
from fcajax.layers.attention import EfficientChannelAttention, MultiSpectralAttention, SqueezeExcite
from fcajax.models import registry


def test_list_models_is_sorted_and_takes_patterns():
  names = fcajax.list_models()
  assert names == sorted(names)
  for prefix in ('', 'se_', 'eca_', 'fca_'):
    for depth in ('18', '34', '50', '101', '152', '20', '56'):
      assert f'{prefix}resnet{depth}' in names
  assert {'resnext50_32x4d', 'se_resnext50_32x4d', 'fca_resnext50_32x4d'} <= set(names)
  assert fcajax.list_models('fca_resnet1*') == ['fca_resnet101', 'fca_resnet152', 'fca_resnet18']
  assert fcajax.list_models('nothing*') == []


def test_every_model_builds_and_hashes():
  for name in fcajax.list_models():
    model = fcajax.create_model(name, num_classes=3)
    assert getattr(model, 'num_classes', 3) == 3
    hash(model)


def test_dct_sizes_follow_the_family():
  assert fcajax.create_model('fca_resnet50').dct_sizes == (56, 28, 14, 7)
  assert fcajax.create_model('fca_resnet20').dct_sizes is None
  assert fcajax.create_model('fca_resnet50', dct_sizes=[7, 7, 7, 7]).dct_sizes == (7, 7, 7, 7)


def test_options_go_to_the_network_or_to_its_attention():
  model = fcajax.create_model(
      'fca_resnet50', zero_init_last=True, frequencies='top8', reduction=8)
  assert model.zero_init_last
  assert dict(model.attention_options) == {'frequencies': 'top8', 'reduction': 8}
  model = fcajax.create_model('resnet50', attention='se', reduction=4)
  assert (model.attention, dict(model.attention_options)) == ('se', {'reduction': 4})
  model = fcajax.create_model('fca_resnet50', attention='none')
  assert not model.attention_options
  model = fcajax.create_model(
      'resnet50', attention_options={'reduction': 8}, attention='se', use_bias=True)
  assert dict(model.attention_options) == {'reduction': 8, 'use_bias': True}


def test_attention_by_class_or_partial():
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  for attention, parameter in (
      (EfficientChannelAttention, ('conv', 'kernel')),
      (functools.partial(SqueezeExcite, reduction=4), ('reduce', 'kernel'))):
    model = fcajax.create_model('resnet20', attention=attention)
    params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    leaf = params['stage1']['block0']['attention']
    for part in parameter:
      leaf = leaf[part]
  assert leaf.shape == (16, 4)


def test_a_partial_keeps_its_dct_size():
  # Images of 32 x 32 are smaller than the 56 x 56 that the family would ask for.
  small = functools.partial(MultiSpectralAttention, dct_size=1, frequencies='top1')
  model = fcajax.create_model('fca_resnet18', attention=small)
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  jax.eval_shape(model.init, jax.random.key(0), x)


def test_options_survive_json():
  options = json.loads(json.dumps({
      'dtype': 'bfloat16', 'activation': 'silu', 'attention': 'fca',
      'frequencies': [[0, 0], [0, 1]], 'stage_strides': [1, 1, 2, 2]}))
  model = fcajax.create_model('resnet50', **options)
  assert model.dtype == jnp.bfloat16
  assert model.attention_options['frequencies'] == ((0, 0), (0, 1))
  assert model.stage_strides == (1, 1, 2, 2)
  hash(model)


@pytest.mark.parametrize('name, options, message', [
    ('fcaresnet50', {}, "unknown model 'fcaresnet50': did you mean 'fca_resnet50'"),
    ('vit', {}, "unknown model 'vit': "),
    ('fca_resnet50', {'frequences': 'top8'}, "no option 'frequences': did you mean 'frequencies'"),
    ('resnet50', {'zero_init': True}, "no option 'zero_init': did you mean 'zero_init_last'"),
    ('resnet50', {'frequencies': 'top8'}, "'frequencies'.*attention='fca'"),
    ('resnet50', {'attention': 'fcaa'}, "unknown attention 'fcaa': did you mean 'fca'"),
    ('resnet50', {'activation': 'swishh'}, "unknown activation 'swishh'"),
    ('resnet50', {'dtype': 'bfloat'}, "dtype='bfloat'"),
])
def test_what_a_mistyped_name_is_told(name, options, message):
  with pytest.raises(ValueError, match=message):
    fcajax.create_model(name, **options)


def test_option_names():
  assert 'frequencies' in registry.option_names('fca_resnet50')
  assert 'frequencies' not in registry.option_names('resnet50')
  assert 'use_bias' in registry.option_names('resnet50', attention='se')
