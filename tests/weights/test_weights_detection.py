"""Names of torchvision's and mmdetection's detectors."""
import jax
import numpy as np
import pytest

from fcajax.models.detection.heads import Upsample
from fcajax.weights.torch import names_detection
from fcajax.weights.torch.rules import IGNORE
from tests.helpers.detectors import tiny_detector

PAIRS = [
    ('backbone.body.layer1.0.conv1.weight', 'backbone.layer1.0.conv1.weight',
     'params/backbone/stage1/block0/conv1/kernel'),
    ('backbone.body.bn1.running_var', 'backbone.bn1.running_var',
     'batch_stats/backbone/stem_norm/var'),
    ('backbone.fpn.inner_blocks.2.0.bias', 'neck.lateral_convs.2.conv.bias',
     'params/neck/lateral2/bias'),
    ('backbone.fpn.layer_blocks.3.weight', 'neck.fpn_convs.3.conv.weight',
     'params/neck/output3/kernel'),
    ('rpn.head.conv.weight', 'rpn_head.rpn_conv.weight', 'params/rpn/conv/kernel'),
    ('rpn.head.conv.0.0.bias', 'rpn_head.rpn_conv.bias', 'params/rpn/conv/bias'),
    ('rpn.head.cls_logits.weight', 'rpn_head.rpn_cls.weight', 'params/rpn/objectness/kernel'),
    ('roi_heads.box_head.fc7.weight', 'roi_head.bbox_head.shared_fcs.1.weight',
     'params/box_head/fc2/kernel'),
    ('roi_heads.box_predictor.bbox_pred.bias', 'roi_head.bbox_head.fc_reg.bias',
     'params/box_head/deltas/bias'),
    ('roi_heads.mask_head.0.0.weight', 'roi_head.mask_head.convs.0.conv.weight',
     'params/mask_head/conv1/kernel'),
    ('roi_heads.mask_head.mask_fcn4.bias', 'roi_head.mask_head.convs.3.conv.bias',
     'params/mask_head/conv4/bias'),
    ('roi_heads.mask_predictor.conv5_mask.bias', 'roi_head.mask_head.upsample.bias',
     'params/mask_head/upsample/bias'),
    ('roi_heads.mask_predictor.mask_fcn_logits.weight', 'roi_head.mask_head.conv_logits.weight',
     'params/mask_head/logits/kernel'),
]


@pytest.mark.parametrize('torchvision, mmdet, path', PAIRS)
def test_both_spellings_have_one_place(torchvision, mmdet, path):
  model = tiny_detector()
  for key in (torchvision, mmdet):
    assert '/'.join(names_detection.target(key, model).path) == path


def test_what_has_no_place():
  model = tiny_detector()
  assert names_detection.target('backbone.fc.weight', model) is IGNORE
  assert names_detection.target('backbone.body.bn1.num_batches_tracked', model) is IGNORE
  assert names_detection.target('roi_heads.keypoint_head.0.weight', model) is None


def test_the_first_matrix_reads_channels_last():
  # A matrix that picks channel 2 at row 5, column 1 of 7 x 7 x 4 features in PyTorch's order.
  weight = np.zeros((3, 4 * 49), np.float32)
  weight[1, 2 * 49 + 5 * 7 + 1] = 1
  target = names_detection.target('roi_heads.box_head.fc6.weight', tiny_detector())
  kernel = target.transform(weight, None)
  features = np.random.default_rng(0).standard_normal((7, 7, 4)).astype(np.float32)
  np.testing.assert_allclose(features.reshape(-1) @ kernel, [0, features[5, 1, 2], 0])


def test_the_transposed_convolution_is_pytorchs():
  torch = pytest.importorskip('torch')
  layer = torch.nn.ConvTranspose2d(5, 6, 2, 2)
  x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
  expected = layer(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
  params = {}
  for leaf, value in layer.state_dict().items():
    target = names_detection.target(f'roi_head.mask_head.upsample.{leaf}', tiny_detector())
    params[target.path[-1]] = target.transform(value.numpy(), value.shape)
  found = Upsample(6).apply({'params': params}, jax.numpy.asarray(x))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_a_checkpoint_says_about_its_detector():
  state = {'roi_heads.box_predictor.cls_score.weight': np.zeros((91, 8))}
  assert names_detection.infer_overrides(state) == {'num_classes': 90, 'rules': 'torchvision'}
  state = {'roi_head.bbox_head.fc_cls.weight': np.zeros((81, 8))}
  assert names_detection.infer_overrides(state) == {'num_classes': 80}
