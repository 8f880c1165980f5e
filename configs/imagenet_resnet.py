"""ResNet v1.5 on ImageNet: the baseline, with the recipe behind torchvision's first weights.

    python train.py --config configs/imagenet_resnet.py:50 --workdir runs/resnet50

SGD with momentum 0.9, weight decay 1e-4 on every parameter, learning rate 0.1 for 256 images,
divided by 10 after 30 and 60 of 90 epochs, without warm-up; random resized crops of 224 and flips;
evaluation on the centre 224 of 256. For a folder of images instead of TFDS, add
--config.data.source=folder --config.data.root=DIR.

Published for this recipe (torchvision, weights IMAGENET1K_V1), top-1 in percent:

    18     69.76
    34     73.31
    50     76.13    (the default)
    101    77.37
    152    78.31

FcaNet's own recipe for any of them, to compare like with like:

    python train.py --config configs/imagenet_fcanet.py:50 --config.model.name=resnet50

'smoke' beside or instead of a depth runs a few updates of small images.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = ('50', '18', '34', '101', '152')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is a depth, 'smoke', or both with a comma between."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.batch_size = config.eval_batch_size = 256
  config.num_epochs = 90.0
  config.dtype = 'bfloat16'
  config.model.name = f'resnet{variant}'
  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'
  config.data.resize_size = 256
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (30, 60)
  return common.shrink(config) if smoke else config
