"""CIFAR-10 with the recipe of the ResNet paper (He et al., 2015, section 4.2).

    fcajax prepare cifar10
    python train.py --config configs/cifar10.py --workdir runs/cifar10
    python train.py --config configs/cifar10.py:resnet20 --workdir runs/cifar10_plain

64,000 updates of 128 images, SGD with momentum 0.9, rate 0.1 divided by 10 after 32,000 and
48,000, weight decay 1e-4, 4 pixels of padding with random crops and flips.

Published for this recipe (He et al., Table 6), top-1: resnet20 91.25 %, resnet56 93.03 %. The
variants with attention (fca_, se_ and eca_; fca_resnet20 is the default) have no published result.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = (
    'fca_resnet20', 'se_resnet20', 'eca_resnet20', 'resnet20',
    'fca_resnet56', 'se_resnet56', 'eca_resnet56', 'resnet56')
EPOCH = 50_000 / 128


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is a model, 'smoke', or both with a comma between."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.num_steps = 64_000
  config.batch_size = 128
  config.eval_batch_size = 500
  config.log_every_steps = 100
  config.model.name = variant
  config.data.source = 'tfds'
  config.data.name = 'cifar10'
  config.data.eval_split = 'test'
  config.data.image_size = config.data.resize_size = 32
  config.data.crop_padding = 4
  config.data.mean = (0.4914, 0.4822, 0.4465)
  config.data.std = (0.2470, 0.2435, 0.2616)
  config.optimizer.learning_rate_batch = 0
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (32_000 / EPOCH, 48_000 / EPOCH)
  return common.shrink(config, image_size=32) if smoke else config
