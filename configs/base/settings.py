"""The keys of a config with their defaults and meaning.

Those of `config.data` are in input_pipeline/settings.py.

A field of type `Any` takes values of several types.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class RunSettings:
  """The keys of `config` itself."""

  # What the network is trained for: 'classification' | 'detection' | 'keypoints', or a class as
  # 'file.py:Class' or 'package.module:Class'.
  task: str = 'classification'
  seed: int = 0
  # Examples of one update and of one evaluation batch, over all devices.
  batch_size: int = 64
  eval_batch_size: int = 64
  num_epochs: float = 90.0
  # Above 0: the number of updates, in place of num_epochs.
  num_steps: int = 0
  # 'float32' | 'bfloat16': what the network computes in. Parameters are float32.
  dtype: str = 'float32'
  # 'shard_map' | 'jit' | 'pmap'.
  parallelism: str = 'shard_map'
  # With parallelism='jit': shard parameters and optimiser state over the devices as well.
  fsdp: bool = False
  # Batch statistics over all devices (True) or of each device's own images.
  sync_batch_norm: bool = True
  label_smoothing: float = 0.0
  # Above 0: evaluate with an exponential moving average of the parameters.
  ema_decay: float = 0.0
  log_every_steps: int = 50
  eval_every_epochs: float = 1.0
  # A work directory or a .safetensors file to take weights from.
  init_from: str = ''
  # Regular expression; parameters whose path it finds stay as they are.
  freeze: str = ''


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """`config.model` also takes every field of the network and of its attention (`fcajax info`)."""

  # A name that `fcajax list` prints.
  name: str = 'resnet50'


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """The keys of `config.optimizer`."""

  # 'sgd' | 'adamw' | 'lamb'.
  name: str = 'sgd'
  learning_rate: float = 0.1
  # Above 0: learning_rate is for a batch of so many images and scales with batch_size.
  learning_rate_batch: int = 256
  momentum: float = 0.9
  nesterov: bool = False
  beta1: float = 0.9
  beta2: float = 0.999
  weight_decay: float = 1e-4
  # 'all' | 'kernels'.
  decay_mask: str = 'all'
  clip_norm: float = 0.0
  # Slices into which a batch is cut to save memory.
  accumulate_steps: int = 1
  # 'cosine' | 'step' | 'constant'.
  schedule: str = 'cosine'
  warmup_epochs: float = 0.0
  # For 'step': epochs after each of which the rate is multiplied by decay_factor.
  boundaries: tuple[float, ...] = ()
  decay_factor: float = 0.1


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
  """The keys of `config.checkpoint`."""

  every_epochs: float = 1.0
  # Above 0: in place of every_epochs.
  every_steps: int = 0
  # The newest checkpoints to keep.
  keep: int = 2
  # Keep that of the best evaluation too.
  keep_best: bool = True
