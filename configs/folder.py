"""A folder of your own images.

    python train.py --config configs/folder.py --config.data.root=DIR

DIR holds train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg alone: then a tenth of each class
is held out for evaluation (--config.data.validation_fraction). Any size, JPEG, PNG, WebP or BMP.
The names of the folders are the names of the classes.

Trains fca_resnet18 (ResNet-18 with multi-spectral channel attention) from scratch at 224 x 224 for
60 epochs. What is often changed:

    --config.model.name=fca_resnet50        any name that `fcajax list` prints
    --config.init_from=RUN_OR_FILE          start from trained weights (new head if need be)
    --config.freeze='^(?!head)'             train the head alone
    --config.data.image_size=128 --config.model.allow_smaller=True
                                            smaller images: a third of the arithmetic
    --config.dtype=bfloat16                 on a GPU or TPU

A data set smaller than one batch is trained on in smaller batches. The accuracy depends on the
images, so none is stated here.
"""
from ml_collections import ConfigDict

from fcajax.configs import common


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` 'smoke' makes it a matter of seconds."""
  _, smoke = common.parse(arg)
  config = common.get_config()
  config.num_epochs = 60.0
  config.batch_size = config.eval_batch_size = 64
  config.log_every_steps = 20
  config.label_smoothing = 0.1
  config.model.name = 'fca_resnet18'
  config.data.source = 'folder'
  config.data.crop_area = (0.25, 1.0)
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 3.0
  if smoke:
    # The published sizes of FcaNet's filters need 224 pixels.
    common.shrink(config, image_size=224)
  return config
