"""PyTorch names of Faster and Mask R-CNN with a feature pyramid: torchvision and mmdetection.

    torchvision                         mmdetection                        here
    backbone.body.layer1.0.conv1        backbone.layer1.0.conv1            backbone/stage1/...
    backbone.fpn.inner_blocks.0.0       neck.lateral_convs.0.conv          neck/lateral0
    backbone.fpn.layer_blocks.0.0       neck.fpn_convs.0.conv              neck/output0
    rpn.head.conv.0.0                   rpn_head.rpn_conv                  rpn/conv
    rpn.head.cls_logits, .bbox_pred     rpn_head.rpn_cls, .rpn_reg         rpn/objectness, deltas
    roi_heads.box_head.fc6, fc7         roi_head.bbox_head.shared_fcs.0    box_head/fc1, fc2
    roi_heads.box_predictor.cls_score   roi_head.bbox_head.fc_cls          box_head/logits
    roi_heads.box_predictor.bbox_pred   roi_head.bbox_head.fc_reg          box_head/deltas
    roi_heads.mask_head.0.0             roi_head.mask_head.convs.0.conv    mask_head/conv1
    roi_heads.mask_predictor.
      conv5_mask                        roi_head.mask_head.upsample        mask_head/upsample
      mask_fcn_logits                   roi_head.mask_head.conv_logits     mask_head/logits

Older torchvision files leave the `.0` behind a convolution of the pyramid, the proposal head and
the mask head out (`mask_head.mask_fcn1`). The order of the classes is the library's: give the
detector its `rules`.
"""
import re

from fcajax.errors import UserError
from fcajax.weights.torch import names_resnet
from fcajax.weights.torch.rules import IGNORE, Target, conv_target, dense_target

_BACKBONE = re.compile(r'backbone\.(?:body\.)?((?:conv1|bn1|layer\d|fc)\b.*)')
_CONVS = tuple((re.compile(pattern + r'\.(weight|bias)'), path) for pattern, path in (
    (r'backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?', ('neck', 'lateral{}')),
    (r'neck\.lateral_convs\.(\d)\.conv', ('neck', 'lateral{}')),
    (r'backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?', ('neck', 'output{}')),
    (r'neck\.fpn_convs\.(\d)\.conv', ('neck', 'output{}')),
    (r'(?:rpn\.head\.conv(?:\.0\.0)?|rpn_head\.rpn_conv)', ('rpn', 'conv')),
    (r'(?:rpn\.head\.cls_logits|rpn_head\.rpn_cls)', ('rpn', 'objectness')),
    (r'(?:rpn\.head\.bbox_pred|rpn_head\.rpn_reg)', ('rpn', 'deltas')),
    (r'(?:roi_heads\.mask_predictor\.mask_fcn_logits|roi_head\.mask_head\.conv_logits)',
     ('mask_head', 'logits')),
))
_MASK_CONV = re.compile(
    r'(?:roi_heads\.mask_head\.(\d)\.0|roi_head\.mask_head\.convs\.(\d)\.conv|'
    r'roi_heads\.mask_head\.mask_fcn(\d))\.(weight|bias)')
_DENSE = {
    'roi_heads.box_head.fc6': 'fc1', 'roi_head.bbox_head.shared_fcs.0': 'fc1',
    'roi_heads.box_head.fc7': 'fc2', 'roi_head.bbox_head.shared_fcs.1': 'fc2',
    'roi_heads.box_predictor.cls_score': 'logits', 'roi_head.bbox_head.fc_cls': 'logits',
    'roi_heads.box_predictor.bbox_pred': 'deltas', 'roi_head.bbox_head.fc_reg': 'deltas',
}
_UPSAMPLE = ('roi_heads.mask_predictor.conv5_mask', 'roi_head.mask_head.upsample')


def target(key, model):
  """Where PyTorch's `key` goes; see `fcajax.weights.torch.from_torch`."""
  if match := _BACKBONE.fullmatch(key):
    return _backbone_target(match[1], model)
  for pattern, path in _CONVS:
    if match := pattern.fullmatch(key):
      *index, leaf = match.groups()
      return conv_target(tuple(part.format(*index) for part in path), leaf)
  if match := _MASK_CONV.fullmatch(key):
    counted, also_counted, from_one, leaf = match.groups()
    index = int(from_one) if from_one else int(counted or also_counted) + 1
    return conv_target(('mask_head', f'conv{index}'), leaf)
  module, _, leaf = key.rpartition('.')
  if module in _UPSAMPLE:
    return _upsample_target(leaf)
  if module in _DENSE:
    return _dense_target(_DENSE[module], leaf, model)
  return None


def _backbone_target(key, model):
  if key.startswith('fc.'):
    return IGNORE  # the classifier that the backbone was trained as
  found = names_resnet.target(key, model.backbone)
  if found is None or found is IGNORE:
    return found
  collection, *path = found.path
  return Target((collection, 'backbone', *path), found.transform)


def _dense_target(name, leaf, model):
  if name == 'fc1' and leaf == 'weight':
    def from_channels_first(array, shape):
      del shape
      side = model.box_size
      if array.ndim != 2 or array.shape[1] % side**2:
        return None
      array = array.reshape(array.shape[0], -1, side, side)
      return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return Target(('params', 'box_head', 'fc1', 'kernel'), from_channels_first)
  return dense_target(('box_head', name), leaf)


def _upsample_target(leaf):
  path = ('params', 'mask_head', 'upsample')
  if leaf == 'weight':
    return Target((*path, 'kernel'), _transposed_conv)
  return conv_target(path[1:], leaf)


def _transposed_conv(array, shape):
  """Kernel of a transposed convolution `[in, out, kh, kw]` -> `[kh, kw, in, out]`."""
  del shape
  return array.transpose(2, 3, 0, 1) if array.ndim == 4 else None


def check(state, model):
  """Raises ValueError where the DCT filters of the backbone are not those that it computes."""
  own = {match[1]: value for key, value in state.items() if (match := _BACKBONE.fullmatch(key))}
  names_resnet.check(own, model.backbone)


def input_shape(model, state):
  """An input that `model.init` takes: the channels of the first kernel, a small size."""
  del model
  for prefix in ('backbone.body.', 'backbone.'):
    if f'{prefix}conv1.weight' in state:
      return (1, 256, 256, state[f'{prefix}conv1.weight'].shape[1])
    if f'{prefix}layer1.0.conv1.weight' in state:
      return (1, 64, 64, state[f'{prefix}layer1.0.conv1.weight'].shape[1])
  raise UserError('the checkpoint has no backbone.conv1.weight and no backbone.body.conv1.weight: '
                  'this is no detector of torchvision or mmdetection with a ResNet')


def infer_overrides(state):
  """`rules` and `num_classes` from the names and the box head."""
  torchvision = 'roi_heads.box_predictor.cls_score.weight' in state
  name = ('roi_heads.box_predictor.cls_score.weight' if torchvision else
          'roi_head.bbox_head.fc_cls.weight')
  if name not in state:
    return {}
  overrides = {'num_classes': int(state[name].shape[0]) - 1}
  if torchvision:
    overrides |= {'rules': 'torchvision'}
  return overrides
