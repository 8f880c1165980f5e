"""FcaNet on ImageNet with the recipe of its paper (Qin et al., 2021).

    python train.py --config configs/imagenet_fcanet.py:50 --workdir runs/fcanet50

SGD with momentum 0.9 (no Nesterov), weight decay 1e-4 on every parameter, learning rate 0.1 for 256
images, 5 epochs of warm-up, then a cosine to 0 at epoch 100; label smoothing 0.1; random resized
crops of 224 with 10 to 100 % of the area and aspect ratios of 0.8 to 1.25, flips; evaluation on the
centre 224 of 256. No mix-up, no averaged parameters. For a folder of images instead of TFDS, add
--config.data.source=folder --config.data.root=DIR.

Published (Table 2 of the paper), top-1 and top-5 in percent:

    34     75.07   92.16
    50     78.52   94.14    (the default)
    101    79.64   94.63
    152    80.08   94.88

'smoke' beside or instead of a depth runs a few updates of small images.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = ('50', '34', '101', '152')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is a depth, 'smoke', or both with a comma between."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.batch_size = config.eval_batch_size = 256
  config.num_epochs = 100.0
  config.dtype = 'bfloat16'
  config.label_smoothing = 0.1
  config.model.name = f'fca_resnet{variant}'
  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'
  config.data.resize_size = 256
  config.data.crop_area = (0.1, 1.0)
  config.data.crop_ratio = (0.8, 1.25)
  config.optimizer.learning_rate = 0.1
  config.optimizer.learning_rate_batch = 256
  config.optimizer.warmup_epochs = 5.0
  if smoke:
    common.shrink(config)
    config.model.allow_smaller = True
  return config
