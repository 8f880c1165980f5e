"""RGB against DCT input on ten ImageNet classes at 64 x 64, small enough for two CPU cores.

    python train.py --config configs/imagenette_dct.py:24S --workdir runs/imagenette_24S

All variants train a ResNet-18 of half the width for the same number of steps:

  24S     24 coefficients of 64 x 64 pixels: 8 x 8 blocks enter stage 1
  192     all coefficients
  gated   192 coefficients behind the gate; `fcajax select runs/imagenette_gated` writes 24D.json
  static  24 coefficients of a gate: --config.data.coefficients=runs/imagenette_gated/24D.json
  rgb32   RGB at 32 x 32 pixels: stage 1 sees 8 x 8 as well, so that the cost is equal. This is the
          paper's comparison of 448 against 224 pixels, at a seventh of the size
  rgb64   RGB at the pixels that the DCT networks see, and four times their cost
  smoke   with any of them: a few small updates

The coefficients' mean and standard deviation are in configs/statistics/imagenette_dct_64.json,
measured by `fcajax statistics` on the training images. `data.data_dir` names the prepared
data set; any other TFDS name of images of 64 x 64 or more works with --config.data.name. What came
out is in docs/dct_input.md.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = ('24S', '192', 'gated', 'static', 'rgb32', 'rgb64')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, '24S' by default."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.batch_size, config.eval_batch_size = 64, 256
  config.num_epochs = 12.0
  config.eval_every_epochs = 2.0
  config.optimizer.learning_rate = 0.05
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 1.0
  config.checkpoint.every_epochs = 3.0
  config.data.source = 'tfds'
  config.data.name = 'imagenette64'
  config.data.in_memory = True
  config.data.crop_area = (0.35, 1.0)
  config.model.width = 32

  if variant.startswith('rgb'):
    config.model.name = 'resnet18'
    config.data.image_size = config.data.resize_size = int(variant.removeprefix('rgb'))
  else:
    config.model.name = 'dct_resnet18'
    config.data.representation = 'dct'
    config.data.chroma = 'full'
    config.data.image_size = config.data.resize_size = 64
    config.data.statistics = 'configs/statistics/imagenette_dct_64.json'
    config.data.coefficients = {'gated': '192', 'static': '24D'}.get(variant, variant)
    config.model.gate = variant == 'gated'
    if variant == 'gated':
      # Every open coefficient costs 0.01 nats; see docs/dct_input.md for why not the published 0.1.
      config.model.gate_penalty = 0.01
      config.model.gate_penalty_reduction = 'sum'
      config.model.gate_temperature = 1.0
  if smoke:
    common.shrink(config, image_size=config.data.image_size)
    if not variant.startswith('rgb'):
      config.data.normalization = 'none'
  return config
