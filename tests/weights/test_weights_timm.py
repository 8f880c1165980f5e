"""timm's networks with random weights give the same logits here."""
import jax
import numpy as np
import pytest

from fcajax.models.registry import create_model
from fcajax.weights import from_torch
from fcajax.weights.torch.from_torch import clean_state
from fcajax.weights.torch.names_resnet import infer_overrides
from tests.helpers import timm_models


@pytest.mark.parametrize('timm_name, timm_options, name', [
    ('resnet50', {}, 'resnet50'),
    ('seresnet50', {}, 'se_resnet50'),
    # timm's own ECA-ResNets have a deep stem; this is ECA-Net as its paper has it.
    ('resnet50', {'block_args': {'attn_layer': 'eca'}}, 'eca_resnet50'),
], ids=['resnet50', 'seresnet50', 'ecaresnet50'])
def test_logits(timm_name, timm_options, name):
  reference = timm_models.create(timm_name, num_classes=11, **timm_options)
  import torch
  state = reference.state_dict()
  model = create_model(name, **infer_overrides(clean_state(state)))
  assert model.num_classes == 11
  variables = from_torch(state, model)
  x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
  with torch.no_grad():
    wanted = reference(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
  logits = jax.jit(lambda x: model.apply(variables, x, train=False))(x)
  assert wanted.std() > 0
  np.testing.assert_allclose(logits, wanted, atol=1e-3 * wanted.std())


@pytest.mark.parametrize('timm_name, name, overrides', [
    ('seresnet18', 'se_resnet18', {'use_bias': True, 'divisor': 8}),
    ('seresnet50', 'se_resnet50', {'use_bias': True}),
    ('resnext50_32x4d', 'resnext50_32x4d', {}),
    ('seresnext50_32x4d', 'se_resnext50_32x4d', {'use_bias': True}),
])
def test_every_key_finds_its_place(timm_name, name, overrides):
  state = clean_state(timm_models.create(timm_name).state_dict())
  inferred = infer_overrides(state)
  assert inferred == {'num_classes': 1000, **overrides}
  model = create_model(name, **inferred)
  variables = from_torch(state, model)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert count == sum(v.size for k, v in state.items() if 'num_batches' not in k)


def test_a_deep_stem_is_listed():
  state = timm_models.create('ecaresnet50t').state_dict()
  with pytest.raises(ValueError, match=r'conv1\.0\.weight \[24, 3, 3, 3\]'):
    from_torch(state, create_model('eca_resnet50'))
