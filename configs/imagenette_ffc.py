"""ffc_resnet20 on ten classes of ImageNet at 32 x 32, short enough for two CPU cores.

    python train.py --config configs/imagenette_ffc.py --config.data.data_dir=DIR
    python train.py --config configs/imagenette_ffc.py:bfloat16 --config.data.data_dir=DIR

400 updates of 64 images. DIR holds the TFDS data set 'imagenette64' (64 x 64 images); name another
with --config.data.name. The variants 'float32' and 'bfloat16' differ in the compute dtype alone.
"""
from ml_collections import ConfigDict

from fcajax.configs import common


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is 'float32', 'bfloat16' and / or 'smoke'."""
  dtype, smoke = common.parse(arg, ('float32', 'bfloat16'))
  config = common.get_config()
  config.dtype = dtype
  config.batch_size = 64
  config.eval_batch_size = 100
  config.num_steps = 400
  config.log_every_steps = 20
  config.model.name = 'ffc_resnet20'
  config.data.source = 'tfds'
  config.data.name = 'imagenette64'
  config.data.image_size = 32
  config.data.resize_size = 32
  config.data.crop_area = (0.25, 1.0)
  config.optimizer.learning_rate = 0.1
  config.optimizer.learning_rate_batch = 0
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 0.5
  return common.shrink(config, image_size=32) if smoke else config
