"""Faster R-CNN with a feature pyramid on COCO: the detectors of FcaNet's Table 3.

    python train.py --config configs/coco_faster_rcnn.py:fca50 --workdir runs/faster_fca50 \\
        --config.data.root=COCO --config.init_from=fca_resnet50.safetensors

COCO holds train2017/, val2017/ and annotations/. The backbone starts from ImageNet weights
(`init_from`: any work directory or weights file of the same backbone); its batch norm keeps their
statistics, and its stem and first stage are not trained. Variants, with the box AP on val 2017 and
the trained parameters that Qin et al. publish (FcaNet, ICCV 2021, Table 3):

    variant   backbone        AP    AP50   AP75   parameters
    r50       resnet50       36.4   58.2   39.2    41.53 M
    se50      se_resnet50    37.7   60.1   40.9    44.02 M
    fca50     fca_resnet50   39.0   61.1   42.3    44.02 M
    r101      resnet101      38.7   60.6   41.9    60.52 M
    se101     se_resnet101   39.6   62.0   43.1    65.24 M
    fca101    fca_resnet101  41.2   63.3   44.6    65.24 M
    smoke     with any of them: a few updates on small images

The recipe is mmdetection's 1x schedule: images of 1333 x 800 at most with their aspect kept, flips,
12 epochs of SGD with momentum 0.9 and weight decay 1e-4, rate 0.02 for 16 images, divided by 10
after epochs 8 and 11, linear warm-up of 500 updates. These AP were not measured with this code.
"""
from ml_collections import ConfigDict

from fcajax.configs import common
from fcajax.input_pipeline.detection_settings import DetectionSettings
from fcajax.tasks.detection import DetectionOptions

VARIANTS = {'r50': 'resnet50', 'se50': 'se_resnet50', 'fca50': 'fca_resnet50',
            'r101': 'resnet101', 'se101': 'se_resnet101', 'fca101': 'fca_resnet101'}
COCO_TRAIN_IMAGES = 117266
"""Images of COCO train 2017 with an object."""


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, 'r50' by default."""
  variant, smoke = common.parse(arg, tuple(VARIANTS))
  config = schedule_1x(common.get_config())
  config.model.name = 'faster_rcnn_fpn'
  config.model.backbone = VARIANTS[variant]
  config.data = common.settings_tree(DetectionSettings)
  return shrink(config) if smoke else config


def schedule_1x(config: ConfigDict) -> ConfigDict:
  """Sets mmdetection's 1x schedule, for 16 images an update; returns the config."""
  config.task = 'detection'
  config.detection = common.settings_tree(DetectionOptions)
  config.batch_size = config.eval_batch_size = 16
  config.num_epochs = 12.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.02
  config.optimizer.learning_rate_batch = 16
  config.optimizer.weight_decay = 1e-4
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (8.0, 11.0)
  config.optimizer.warmup_epochs = 500 * 16 / COCO_TRAIN_IMAGES
  return config


def shrink(config: ConfigDict) -> ConfigDict:
  """Makes a detector's config small enough for a minute on a CPU; returns it."""
  config.num_steps = 4
  config.batch_size = config.eval_batch_size = 8
  config.log_every_steps = 1
  config.optimizer.warmup_epochs = 0.0
  config.dtype = 'float32'
  options = config.model.get('backbone_options', ConfigDict()).to_dict()
  config.model.update({
      'backbone_options': {**options, 'stage_sizes': (1, 1, 1, 1), 'width': 8}, 'channels': 16,
      'proposals_before': (50, 50), 'proposals_after': (50, 50), 'box_sampling': (32, 0.25)})
  config.data.short_side, config.data.long_side = 128, 192
  config.data.bucket_aspects = ()
  config.data.max_boxes = 20
  return config
