"""Frequency channel attention on real handwritten digits, in minutes on two CPU cores.

    python train.py --config configs/quickstart.py --workdir runs/quickstart

fca_resnet20 (the CIFAR-style ResNet-20 with multi-spectral channel attention, Qin et al. 2021) on
the 1,797 digits of UCI's Optical Recognition of Handwritten Digits, 8 x 8 pixels, enlarged to
32 x 32; a fifth of them is held out. Nothing is downloaded.

Measured on the 359 held-out digits: 99.72 % after 5 epochs with seed 0, and after 8 epochs with
seeds 0 and 1.
"""
from ml_collections import ConfigDict

from fcajax.configs import common


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` 'smoke' makes it a matter of seconds."""
  _, smoke = common.parse(arg)
  config = common.get_config()
  config.num_epochs = 5.0
  config.batch_size = 64
  config.eval_batch_size = 128
  config.log_every_steps = 20
  config.eval_every_epochs = 1.0
  config.label_smoothing = 0.1
  config.model.name = 'fca_resnet20'
  config.data.source = 'digits'
  config.data.validation_fraction = 0.2
  config.data.image_size = 32
  config.data.resize_size = 32
  config.data.crop_padding = 2
  config.data.flip = False
  config.optimizer.learning_rate = 0.1
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 1.0
  config.checkpoint.every_epochs = 4.0
  return common.shrink(config, image_size=32) if smoke else config
