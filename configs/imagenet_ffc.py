"""Fast Fourier convolution on ImageNet with the recipe of its paper (Chi et al., 2020).

    python train.py --config configs/imagenet_ffc.py --workdir runs/ffc_resnet50
    python train.py --config configs/imagenet_ffc.py:a0.5 --workdir runs/ffc_resnet50_half

SGD with momentum 0.9, learning rate 0.1 for 256 images, divided by 10 after 30, 60 and 80 of 90
epochs, 5 epochs of warm-up from 0, weight decay 1e-4 on every parameter, random resized crops of
224 and flips, batch norm of each device's own images. For a folder of images instead of TFDS, add
--config.data.source=folder --config.data.root=DIR.

Variants, all FFC-ResNet-50 unless they say otherwise (published top-1 in brackets):
  a0 [76.3], a0.125 [77.3], a0.25 [77.6], a0.5 [77.8], a0.75 [77.6], a1 [75.2]
                          the ratio of global channels, without local Fourier units
  a0.25_lfu [77.8], a0.5_lfu [77.9]
                          with local Fourier units; a0.25_lfu is the default
  no_global_to_local [76.6], no_local_to_global [76.2], no_crossing [75.6]
                          a0.25 without a path between the halves (where both exist)
  resnet101 [78.8], resnet152 [78.9], resnext50 [78.0]
                          ratio 0.25, 0.25 and 0.5, without local Fourier units
  resnet18, resnet34, resnext101
                          ratio 0.25 with local Fourier units; no published result. resnext101 has
                          [3, 4, 23, 3] blocks, the published code [3, 4, 32, 3]
'smoke' beside or instead of a variant runs a few updates.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

VARIANTS = {
    'a0.25_lfu': {'ratio': 0.25, 'lfu': True},
    'a0': {'ratio': 0.0, 'lfu': False},
    'a0.125': {'ratio': 0.125, 'lfu': False},
    'a0.25': {'ratio': 0.25, 'lfu': False},
    'a0.5': {'ratio': 0.5, 'lfu': False},
    'a0.75': {'ratio': 0.75, 'lfu': False},
    'a1': {'ratio': 1.0, 'lfu': False},
    'a0.5_lfu': {'ratio': 0.5, 'lfu': True},
    'no_global_to_local': {'ratio': 0.25, 'lfu': False, 'global_to_local': False},
    'no_local_to_global': {'ratio': 0.25, 'lfu': False, 'local_to_global': False},
    'no_crossing': {
        'ratio': 0.25, 'lfu': False, 'global_to_local': False, 'local_to_global': False},
    'resnet101': {'name': 'ffc_resnet101', 'ratio': 0.25, 'lfu': False},
    'resnet152': {'name': 'ffc_resnet152', 'ratio': 0.25, 'lfu': False},
    'resnext50': {'name': 'ffc_resnext50_32x4d', 'ratio': 0.5, 'lfu': False},
    'resnet18': {'name': 'ffc_resnet18', 'ratio': 0.25, 'lfu': True},
    'resnet34': {'name': 'ffc_resnet34', 'ratio': 0.25, 'lfu': True},
    'resnext101': {'name': 'ffc_resnext101_32x8d', 'ratio': 0.25, 'lfu': True},
}


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` is a variant, 'smoke', or both with a comma between."""
  variant, smoke = common.parse(arg, tuple(VARIANTS))
  config = common.get_config()
  config.batch_size, config.eval_batch_size = 256, 256
  config.num_epochs = 90.0
  config.dtype = 'bfloat16'
  config.sync_batch_norm = False
  config.model.name = 'ffc_resnet50'
  for key, value in VARIANTS[variant].items():
    config.model[key] = value
  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (30, 60, 80)
  config.optimizer.warmup_epochs = 5.0
  return common.shrink(config) if smoke else config
