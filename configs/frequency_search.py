"""Picks FcaNet's frequencies by its two-step criterion, on a held-out part of the training set.

    python train.py --config configs/frequency_search.py --workdir runs/search
    python train.py --config configs/frequency_search.py:imagenette64_cpu --workdir runs/search

Variants:
  imagenet          the paper's protocol: ResNet-50 on ImageNet, 100 epochs without attention, then
                    20 epochs at learning rate 0.02 for each of the 49 frequencies. One seed.
  imagenette64      fca_resnet20 on 64 x 64 images of ten classes, three seeds, for one GPU.
  imagenette64_cpu  the same images at 28 x 28, a short base and 28 updates a candidate, for two
                    CPU cores. See docs/frequency_search.md for what it takes and what it shows.
  smoke             any of them for a few updates, to see that it runs.

A base network that is trained already: --config.search.base=runs/resnet50.
"""

from ml_collections import ConfigDict

from fcajax.configs import common
from fcajax.search.settings import SearchSettings

VARIANTS = ('imagenet', 'imagenette64', 'imagenette64_cpu')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, 'imagenet' by default."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  config.data.source = 'tfds'
  config.search = common.settings_tree(SearchSettings)
  {'imagenet': _imagenet, 'imagenette64': _imagenette64,
   'imagenette64_cpu': _imagenette64_cpu}[variant](config)
  if smoke:
    _shrink(config, variant)
  return config


def _shrink(config, variant):
  """Sets four frequencies, few images (at least 10 of each class held out) and few updates."""
  common.shrink(config)
  # The stages of 64 pixels are smaller than the published DCT sizes.
  config.model.allow_smaller = True
  held = 10_000 if variant == 'imagenet' else 200
  config.data.train_split, config.data.eval_split = 'train[:400]', f'train[400:{400 + held}]'
  config.eval_batch_size = 100
  config.search.grid = (2, 2)
  config.search.num_steps = 2
  config.search.seeds = 2
  config.search.parallel = 3
  config.search.top_k = (1, 2)


def _imagenet(config):
  config.model.name = 'fca_resnet50'
  config.data.name = 'imagenet2012'
  config.data.train_split, config.data.eval_split = 'train[:97%]', 'train[97%:]'
  config.data.crop_ratio = (0.8, 1.25)
  config.batch_size, config.eval_batch_size = 256, 256
  config.num_epochs = 100.0
  config.label_smoothing = 0.1
  config.dtype = 'bfloat16'
  config.optimizer.warmup_epochs = 5.0
  config.search.learning_rate = 0.02
  config.search.seeds = 1
  config.search.parallel = 1
  config.search.top_k = (1, 2, 4, 8, 16, 32)


def _imagenette64(config):
  config.model.name = 'fca_resnet20'
  # With 16 channels, the usual reduction of 16 would leave the gate one number to go by.
  config.model.reduction = 4
  config.data.name = 'imagenette64'
  config.data.train_split, config.data.eval_split = 'train[:80%]', 'train[80%:]'
  config.data.image_size = config.data.resize_size = 64
  config.data.in_memory = True
  config.data.crop_area = (0.35, 1.0)
  config.batch_size, config.eval_batch_size = 128, 256
  config.num_epochs = 60.0
  config.optimizer.learning_rate_batch = 128
  config.optimizer.weight_decay = 5e-4
  config.optimizer.warmup_epochs = 2.0
  config.search.num_epochs = 10.0
  config.search.parallel = 49


def _imagenette64_cpu(config):
  _imagenette64(config)
  # The stages see 28, 14 and 7: multiples of 7, where the frequencies are the published ones.
  config.data.image_size = config.data.resize_size = 28
  config.batch_size = 64
  config.num_epochs = 10.0
  config.search.num_steps = 28
  # So few updates need a higher rate, or the new gates stay near where they were drawn.
  config.search.learning_rate = 0.05
  config.search.parallel = 7
