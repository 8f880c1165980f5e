"""A network that reads block-DCT coefficients of photographs, in some minutes on two CPU cores.

    fcajax prepare imagenette/160px-v2
    python train.py --config configs/quickstart_dct.py --workdir runs/quickstart_dct

dct_resnet18 of half the width on 24 of the 192 coefficients (subset 24S) of 64 x 64 pixels:
Imagenette, ten classes of ImageNet. The coefficients' mean and standard deviation are those of
configs/statistics/imagenette_dct_64.json; for other images or sizes compute them first:

    fcajax statistics --config configs/quickstart_dct.py --output FILE
"""
from ml_collections import ConfigDict

from fcajax.configs import common


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` 'smoke' makes it a matter of seconds."""
  _, smoke = common.parse(arg)
  config = common.get_config()
  config.num_epochs = 5.0
  config.batch_size, config.eval_batch_size = 64, 256
  config.log_every_steps = 20
  config.model.name = 'dct_resnet18'
  config.model.width = 32
  config.data.source = 'tfds'
  config.data.name = 'imagenette/160px-v2'
  config.data.image_size = config.data.resize_size = 64
  config.data.crop_area = (0.35, 1.0)
  config.data.representation = 'dct'
  config.data.chroma = 'full'
  config.data.coefficients = '24S'
  config.data.statistics = 'configs/statistics/imagenette_dct_64.json'
  config.optimizer.learning_rate = 0.05
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 0.5
  if smoke:
    common.shrink(config)
    config.data.normalization = 'none'
  return config
