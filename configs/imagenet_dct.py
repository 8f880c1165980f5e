"""ImageNet from block-DCT coefficients: the rows of Tables 1 and 2 of Xu et al. (CVPR 2020).

    fcajax statistics --config configs/imagenet_dct.py:24S
    python train.py --config configs/imagenet_dct.py:24S --workdir runs/dct_24S

The first command is needed once for ResNet-50 and once (mobilenet_24S) for MobileNetV2: it writes
every coefficient's mean and standard deviation to the file that `data.statistics` names. Variants:

  24S, 24D, 24T, 48S, 48T, 64S, 64T, 192   dct_resnet50 on these coefficients: Table 1, at the cost
                                           of RGB (3.9 GMACs)
  24S_s1122, ...                           the same with the published stage strides (13.5 GMACs)
  rgb, ycbcr                               resnet50 on 224 x 224 pixels (4.1 GMACs)
  rgb_s1122                                RGB with the published stage strides: its baseline at
                                           equal cost
  gated, gated_s1122                       192 coefficients behind the gate; then
                                           `fcajax select WORKDIR` and --config.data.coefficients
  mobilenet_6S, _12S, _24S, _32S           dct_mobilenet_v2, from 896 x 896 pixels: Table 2
  mobilenet_rgb                            mobilenet_v2 on 224 x 224 pixels
  smoke                                    with any of them: a few small updates

The recipe is the paper's: SGD 0.1, momentum 0.9, weight decay 4e-5, divided by 10 every 50 epochs,
210 epochs (MobileNetV2: 150). No batch size is published; the rate is taken per 256 images. To
start from RGB weights, as published: --config.init_from=resnet50.safetensors.
"""
from ml_collections import ConfigDict

from fcajax.configs import common

SUBSETS = ('24S', '24D', '24T', '48S', '48T', '64S', '64T', '192')
_RESNETS = (*SUBSETS, 'gated', 'rgb')
_MOBILENETS = ('6S', '12S', '24S', '32S', 'rgb')
VARIANTS = (*_RESNETS, 'ycbcr', *(f'{name}_s1122' for name in _RESNETS),
            *(f'mobilenet_{name}' for name in _MOBILENETS))


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, '24S' by default."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = common.get_config()
  mobilenet = variant.startswith('mobilenet_')
  published_strides = variant.endswith('_s1122')
  kind = variant.removeprefix('mobilenet_').removesuffix('_s1122')

  config.batch_size = config.eval_batch_size = 256
  config.num_epochs = 150.0 if mobilenet else 210.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.1
  config.optimizer.learning_rate_batch = 256
  config.optimizer.weight_decay = 4e-5
  config.optimizer.schedule = 'step'
  config.optimizer.boundaries = (50, 100, 150, 200)
  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'

  network = 'mobilenet_v2' if mobilenet else 'resnet50'
  if kind in ('rgb', 'ycbcr'):
    config.model.name = network
    config.data.representation = kind
    if published_strides:
      config.model.stage_strides = (1, 1, 2, 2)
    if kind == 'ycbcr':
      # Of Y, Cb and Cr over 400 training images of ten ImageNet classes.
      config.data.mean = (0.448, 0.489, 0.504)
      config.data.std = (0.273, 0.070, 0.060)
  else:
    config.model.name = f'dct_{network}' + ('_s1122' if published_strides else '')
    config.data.representation = 'dct'
    config.data.chroma = 'full'
    # Twice the pixels of the RGB network's input a side: as many blocks as its first stage has.
    config.data.image_size, config.data.resize_size = (896, 1024) if mobilenet else (448, 512)
    config.data.statistics = f'imagenet_dct_{config.data.image_size}.json'
    config.data.coefficients = '192' if kind == 'gated' else kind
    config.model.gate = kind == 'gated'
    if kind == 'gated':
      config.model.gate_penalty = 0.1
      config.model.gate_penalty_reduction = 'sum'
      config.model.gate_temperature = 1.0
  if smoke:
    common.shrink(config)
    config.data.normalization = 'none'
  return config
