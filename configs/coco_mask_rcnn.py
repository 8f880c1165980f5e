"""Mask R-CNN with a feature pyramid on COCO: FcaNet's, and Learning in the Frequency Domain's.

    python train.py --config configs/coco_mask_rcnn.py:fca50 --workdir runs/mask_fca50 \\
        --config.data.root=COCO --config.init_from=fca_resnet50.safetensors

COCO holds train2017/, val2017/ and annotations/. Needs pycocotools, which
`pip install 'fcajax[detection]'` adds.
The backbone starts from ImageNet weights, as in configs/coco_faster_rcnn.py, whose recipe this is.
Variants, with the published AP on val 2017 of boxes and masks:

    variant    backbone                        box AP   mask AP   source
    r50        resnet50                         37.2      34.1    Qin et al., Tables 3 and 4
    se50       se_resnet50                      38.7      35.4
    fca50      fca_resnet50                     40.3      36.2
    fca50_ohem fca_resnet50, the hardest samples of the box head in place of random ones, as the
               authors' configuration for Mask R-CNN has it
    dct_24S    dct_resnet50_s1122, 24 channels  37.7      34.6    Xu et al., Tables 3 and 4
    dct_48S    the same, 48 channels            38.1      35.0    (RGB: 37.3 and 34.2)
    dct_64S    the same, 64 channels            38.1      35.0
    smoke      with any of them: a few updates on small images

The dct variants read block-DCT coefficients of images of 2666 x 1600 at most: 200 x 334 blocks,
and as many cells as the first stage of the RGB network has. Boxes stay in pixels of the image of
1333 x 800. These AP were not measured with this code.
"""
from ml_collections import ConfigDict

from fcajax.configs import coco_faster_rcnn, common
from fcajax.input_pipeline.detection_settings import DetectionSettings

_BACKBONES = {'r50': 'resnet50', 'se50': 'se_resnet50', 'fca50': 'fca_resnet50',
              'fca50_ohem': 'fca_resnet50'}
VARIANTS = (*_BACKBONES, 'dct_24S', 'dct_48S', 'dct_64S')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, 'r50' by default."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = coco_faster_rcnn.schedule_1x(common.get_config())
  config.model.name = 'mask_rcnn_fpn'
  config.data = common.settings_tree(DetectionSettings, masks='box')
  if variant in _BACKBONES:
    config.model.backbone = _BACKBONES[variant]
    if variant == 'fca50_ohem':
      config.model.ohem = True
  else:
    config.model.backbone = 'dct_resnet50_s1122'
    config.model.backbone_options = {'coefficients': variant.removeprefix('dct_')}
    config.data.representation = 'dct'
    config.data.coefficients = variant.removeprefix('dct_')
    config.data.chroma = 'full'
    config.data.normalization = 'published'
    config.data.enlarge = 2
  return coco_faster_rcnn.shrink(config) if smoke else config
