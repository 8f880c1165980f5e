r"""Imagenette: ten classes of ImageNet, 9,469 photographs to train on and 3,925 to evaluate.

    fcajax prepare imagenette/160px-v2
    python train.py --config configs/imagenette.py --workdir runs/imagenette

fca_resnet18 from scratch on images of 64 x 64 (the default, made for CPUs), or
configs/imagenette.py:128 and configs/imagenette.py:224 (with imagenette/320px-v2) for a GPU.
Another data set of photographs is trained on by its name:

    python train.py --config configs/imagenette.py --config.data.name=NAME \
        --config.data.data_dir=DIR

No results of FcaNet on Imagenette are published.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = ('64', '128', '224')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is an image size, 'smoke', or both with a comma between."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.num_epochs = 20.0
  config.batch_size = 64
  config.eval_batch_size = 256
  config.log_every_steps = 20
  config.label_smoothing = 0.1
  config.model.name = 'fca_resnet18'
  config.data.source = 'tfds'
  config.data.name = 'imagenette/320px-v2' if variant == '224' else 'imagenette/160px-v2'
  config.data.image_size = int(variant)
  # The published DCT sizes are for 224; smaller maps are enlarged to them, as the original does.
  config.model.allow_smaller = True
  # At 64 nothing may be lost at the rim; the larger sizes are evaluated as ImageNet is.
  config.data.resize_size = 64 if variant == '64' else 0
  config.data.crop_area = (0.35, 1.0)
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 1.0
  return common.shrink(config) if smoke else config
