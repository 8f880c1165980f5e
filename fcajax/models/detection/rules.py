"""The rules in which detection libraries differ, and the two published sets of them."""
import dataclasses
from collections.abc import Mapping
from typing import Literal

from fcajax.errors import UserError, did_you_mean
from fcajax.ops.matching import Assigner

_RPN = Assigner(0.7, 0.3, 'ground_truth', 0.3)
_BOX = Assigner(0.5, 0.5)
_MASK = Assigner(0.5, 0.5, 'ground_truth', 0.5)


@dataclasses.dataclass(frozen=True)
class Rules:
  """Conventions of a detector; the defaults are those of mmdetection 2.x.

  Attributes:
    rounded_anchors: corners of the anchors are whole pixels.
    stride_from_map: anchors stand image size // map size pixels apart instead of at the level's
      stride.
    anchors_on_image: train on anchors of the image alone, not of the padding of its batch.
    clamp: sides on which dw and dh are limited, see `decode_boxes`.
    background: index of the background among the class logits. 'first' has boxes and masks for
      the background too.
    rpn_assigner: which anchors are trained on which box.
    box_assigner: the same of proposals in a detector without masks.
    mask_assigner: the same of proposals in a detector with masks.
    rpn_beta: where the smooth L1 loss of proposals turns linear; 0 is the L1 loss.
    box_beta: the same in the box head.
    sampling_ratio: samples along a side of a RoIAlign bin; 0 is adaptive.
    aligned: RoIAlign's pixel centres at half-integers.
    level_rule: how the area of a box chooses its pyramid level, see `box_levels`.
    mask_threshold: mask targets are 1 from here on; None keeps fractions.
    paste: how masks come into the image, see `paste_mask`.
    proposal_min_size: proposals with a smaller side are dropped; 0 drops those of no area.
    detection_min_size: detections with a smaller side are dropped before suppression.
  """
  rounded_anchors: bool = False
  stride_from_map: bool = False
  anchors_on_image: bool = True
  clamp: Literal['both', 'above'] = 'both'
  background: Literal['last', 'first'] = 'last'
  rpn_assigner: Assigner = _RPN
  box_assigner: Assigner = _BOX
  mask_assigner: Assigner = _MASK
  rpn_beta: float = 0.0
  box_beta: float = 0.0
  sampling_ratio: int = 0
  aligned: bool = True
  level_rule: Literal['mmdet', 'torchvision'] = 'mmdet'
  mask_threshold: float | None = 0.5
  paste: Literal['mmdet', 'torchvision'] = 'mmdet'
  proposal_min_size: float = 0.0
  detection_min_size: float | None = None


RULES = {
    'mmdet': Rules(),
    'torchvision': Rules(
        rounded_anchors=True, stride_from_map=True, anchors_on_image=False, clamp='above',
        background='first', rpn_assigner=Assigner(0.7, 0.3, 'candidate'),
        mask_assigner=_BOX, rpn_beta=1 / 9, box_beta=1 / 9, sampling_ratio=2,
        aligned=False, level_rule='torchvision', mask_threshold=None, paste='torchvision',
        proposal_min_size=1e-3, detection_min_size=1e-2),
}


def resolve_rules(name: object, changes: Mapping | None = None) -> Rules:
  """Returns the rules `name` ('mmdet' or 'torchvision') with the fields in `changes` replaced.

  An assigner may be given as the mapping or the sequence of its fields.
  """
  if name not in RULES:
    raise UserError(f'rules={name!r} is not one of {", ".join(map(repr, RULES))}')
  fields = {field.name for field in dataclasses.fields(Rules)}
  replaced = {}
  for key, value in (changes or {}).items():
    if key not in fields:
      raise UserError(f'rule_options has no rule {key!r}: {did_you_mean(key, fields)}')
    if key.endswith('_assigner') and not isinstance(value, Assigner):
      value = Assigner(**value) if isinstance(value, Mapping) else Assigner(*value)
    replaced[key] = value
  return dataclasses.replace(RULES[name], **replaced)
