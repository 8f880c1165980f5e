"""What every config starts from: all keys with their defaults, and how arguments are read.

A config is a file with `get_config(arg='')` that returns a `ConfigDict`. The text after the
colon, as in `--config configs/imagenet_fcanet.py:101,smoke`, is `arg`.
"""
import difflib

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# What `create_model` takes besides the name; None leaves the model's own default.
MODEL_KEYS = (
    'activation', 'attention', 'attention_options', 'base_width', 'block', 'coefficients',
    'dct_sizes', 'dropout', 'fourier_implementation', 'gate', 'gate_penalty',
    'gate_penalty_reduction', 'gate_temperature', 'global_to_local', 'groups', 'lfu',
    'local_to_global', 'output_stride', 'ratio', 'stage_sizes', 'stage_strides', 'stem', 'use_se',
    'width', 'zero_init_last',
    # Fields of the attention.
    'allow_smaller', 'b', 'basis', 'dct_size', 'divisor', 'frequencies', 'gamma', 'grid',
    'kernel_size', 'learnable', 'normalization', 'reduction', 'seed', 'use_bias')


def get_config():
  """The base config: trains a ResNet on an image folder once `data.root` is set."""
  config = ConfigDict()
  # 'train', or the name of another task that train.py knows ('frequency_search').
  config.task = 'train'
  config.seed = 0
  # Images of one update and of one evaluation batch, over all devices.
  config.batch_size = 64
  config.eval_batch_size = 64
  config.num_epochs = 90.0
  # Above 0: the number of updates, in place of num_epochs.
  config.num_steps = 0
  # 'float32' | 'bfloat16': what the network computes in. Parameters are float32.
  config.dtype = 'float32'
  # 'shard_map' | 'jit' | 'pmap'.
  config.parallelism = 'shard_map'
  # With parallelism='jit': shard parameters and optimiser state over the devices as well.
  config.fsdp = False
  # Batch statistics over all devices (True) or of each device's own images.
  config.sync_batch_norm = True
  config.label_smoothing = 0.0
  # Above 0: evaluate with an exponential moving average of the parameters.
  config.ema_decay = 0.0
  config.log_every_steps = 50
  config.eval_every_epochs = 1.0
  # A work directory or a .safetensors file to take weights from.
  config.init_from = ''
  # Regular expression; parameters whose path it finds stay as they are.
  config.freeze = ''

  config.model = ConfigDict({'name': 'resnet50'})
  for key in MODEL_KEYS:
    config.model[key] = placeholder(object)

  config.data = ConfigDict({
      # 'folder' | 'tfds' | 'digits'.
      'source': 'folder',
      'name': '',
      'data_dir': '',
      'root': '',
      'train_split': 'train',
      'eval_split': 'validation',
      'validation_fraction': 0.1,
      'resize_size': 0,
      'crop_area': (0.08, 1.0),
      'crop_ratio': (3 / 4, 4 / 3),
      'crop_padding': 0,
      'augment': True,
      'flip': True,
      'mean': (0.485, 0.456, 0.406),
      'std': (0.229, 0.224, 0.225),
      'workers': 0,
      'threads': 0,
      'prefetch': 2,
      'max_corrupt_fraction': 0.01,
      'representation': 'rgb',
      'chroma': 'half',
      'normalization': 'statistics',
      'statistics': '',
      'dct_on': 'device',
      'dct_bits': 16,
  })
  # Values of more than one type: a size or (height, width); a flag or 'auto'; a name or a dict.
  for key, value in (('image_size', 224), ('in_memory', 'auto'), ('coefficients', '24S')):
    config.data[key] = placeholder(object)
    config.data[key] = value

  config.optimizer = ConfigDict({
      # 'sgd' | 'adamw' | 'lamb'.
      'name': 'sgd',
      'learning_rate': 0.1,
      # Above 0: learning_rate is for a batch of so many images and scales with batch_size.
      'learning_rate_batch': 256,
      'momentum': 0.9,
      'nesterov': False,
      'beta1': 0.9,
      'beta2': 0.999,
      'weight_decay': 1e-4,
      # 'all' | 'kernels'.
      'decay_mask': 'all',
      'clip_norm': 0.0,
      # Slices into which a batch is cut to save memory.
      'accumulate_steps': 1,
      # 'cosine' | 'step' | 'constant'.
      'schedule': 'cosine',
      'warmup_epochs': 0.0,
      # For 'step': epochs after each of which the rate is multiplied by decay_factor.
      'boundaries': (),
      'decay_factor': 0.1,
  })
  config.checkpoint = ConfigDict({
      'every_epochs': 1.0,
      # Above 0: in place of every_epochs.
      'every_steps': 0,
      'keep': 2,
      'keep_best': True,
  })
  return config


def parse(arg, variants=()):
  """Reads a config's argument: at most one of `variants`, and 'smoke', separated by commas.

  Args:
    arg: the text after the colon.
    variants: allowed names; the first is the default.

  Returns:
    (variant or None, smoke).

  Raises:
    ValueError: any other word, naming what is near it.
  """
  variant, smoke = (variants[0] if variants else None), False
  for word in filter(None, (part.strip() for part in (arg or '').split(','))):
    if word == 'smoke':
      smoke = True
    elif word in variants:
      variant = word
    else:
      known = [*variants, 'smoke']
      near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
      raise ValueError(
          f'unknown config argument {word!r}; ' +
          (f'did you mean {", ".join(near)}?' if near else f'use one of {", ".join(known)}'))
  return variant, smoke


def shrink(config, *, steps=4, batch_size=8, image_size=64):
  """Makes any config small enough for a few seconds on a CPU."""
  config.num_steps = steps
  config.batch_size = config.eval_batch_size = batch_size
  config.data.image_size = image_size
  config.data.resize_size = 0
  config.log_every_steps = 1
  config.optimizer.warmup_epochs = 0.0
  config.dtype = 'float32'
  return config
