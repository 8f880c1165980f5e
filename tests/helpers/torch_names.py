"""PyTorch state dicts and metadata made to fit a network of this library."""
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

SMALL = 'resnet20'


def torch_names(model, shape=(1, 32, 32, 3), seed=0):
  """A state dict that fits `model`, made backwards: PyTorch names and layouts."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  rng, state = np.random.default_rng(seed), {}
  leaves = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean',
            'var': 'running_var'}
  modules = {'stem_conv': 'conv1', 'stem_norm': 'bn1', 'head': 'fc', 'reduce': 'fc.0',
             'expand': 'fc.2', 'shortcut_conv': 'downsample.0', 'shortcut_norm': 'downsample.1',
             'attention': 'att'}
  for path, leaf in traverse_util.flatten_dict(variables).items():
    names = []
    for part in path[1:-1]:
      if part.startswith('stage'):
        part = f'layer{part[5:]}'
      elif part.startswith('block'):
        part = part[5:]
      elif part.startswith('norm'):
        part = f'bn{part[4:]}'
      names.append(modules.get(part, part))
    value = rng.standard_normal(leaf.shape).astype(np.float32)
    if leaf.ndim == 4:
      value = value.transpose(3, 2, 0, 1)
    elif leaf.ndim == 2:
      value = value.T
    state['.'.join([*names, leaves[path[-1]]])] = np.ascontiguousarray(value)
    if path[-1] == 'mean':
      state['.'.join([*names, 'num_batches_tracked'])] = np.array(0)
  return state


def describe(name=SMALL):
  return {'model': {'name': name, 'num_classes': 4, 'overrides': {}},
          'class_names': list('abcd'), 'preprocessing': {'image_size': 32}}
