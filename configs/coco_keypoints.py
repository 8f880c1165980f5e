"""Keypoints of persons on COCO 2017: SimpleBaseline on plain and on Fourier backbones.

    python train.py --config configs/coco_keypoints.py:ffc_resnet50 --workdir runs/keypoints \
        --config.data.root=COCO --config.init_from=FFC_RESNET50.safetensors

COCO holds train2017/, val2017/ and annotations/. The variants are ffc_resnet50, 101 and 152, and
resnet50, 101 and 152; with _384 behind the name the crops are 384 x 288 in place of 256 x 192.
Published AP on val2017, flipped average, a detector's boxes of AP 56.4
(`--config.data.eval_boxes=FILE`), backbones trained on ImageNet:

                 resnet50  resnet101  resnet152  ffc_resnet50  ffc_resnet101  ffc_resnet152
    256 x 192      70.4       71.4       72.0        71.8           72.7           72.9
    384 x 288      72.2       73.6       74.3        73.9           74.5           74.8

Sources: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018; Chi et al.,
"Fast Fourier Convolution", 2020, table 6.
"""
from ml_collections import ConfigDict

from fcajax.configs import common
from fcajax.input_pipeline.keypoints import KeypointSettings
from fcajax.tasks.keypoints import KeypointOptions

BACKBONES = ('ffc_resnet50', 'ffc_resnet101', 'ffc_resnet152', 'resnet50', 'resnet101', 'resnet152')
# 140 epochs of 149,813 persons are 164,000 updates of 128.
EPOCHS = 140.0


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of a variant; 'smoke' makes it a matter of seconds."""
  variants = [*BACKBONES, *(f'{name}_384' for name in BACKBONES)]
  variant, smoke = common.parse(arg, variants)
  backbone, large, _ = variant.partition('_384')
  config = base_config(backbone)
  if large:
    config.data.image_size = (384, 288)
    config.keypoints.sigma = 3.0
  return shrink(config) if smoke else config


def base_config(backbone: str) -> ConfigDict:
  """Returns the published recipe for a backbone: Adam at 1e-3, / 10 after 90 and 120 epochs."""
  config = common.get_config()
  config.task = 'keypoints'
  config.model = ConfigDict({'name': 'simple_baseline', 'backbone': backbone})
  config.data = common.settings_tree(KeypointSettings)
  config.keypoints = common.settings_tree(KeypointOptions)
  config.num_epochs = EPOCHS
  config.batch_size = config.eval_batch_size = 128
  config.eval_every_epochs = 10.0
  config.optimizer.name = 'adamw'  # Adam, as there is no decay
  config.optimizer.weight_decay = 0.0
  config.optimizer.learning_rate = 1e-3
  config.optimizer.learning_rate_batch = 0
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (90.0, 120.0)
  config.optimizer.decay_factor = 0.1
  return config


def shrink(config: ConfigDict) -> ConfigDict:
  """Makes the config small enough for a few seconds on a CPU."""
  config.model.backbone = 'ffc_resnet18'
  config.data.image_size = (64, 64)
  config.keypoints.sigma = 1.0
  config.num_steps = 2
  config.batch_size = config.eval_batch_size = 4
  config.log_every_steps = 1
  return config
