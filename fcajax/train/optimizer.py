"""Optimisers, learning-rate schedules and frozen parameters, from `config.optimizer`."""
import re
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fcajax import trees
from fcajax.errors import UserError, near_matches
from fcajax.trees import path_name

SCHEDULES = ('cosine', 'step', 'constant')
DECAY_MASKS = ('all', 'kernels')


def check_schedule(config: ConfigDict) -> None:
  """Raises UserError if `config.optimizer.schedule` is unknown."""
  if config.schedule not in SCHEDULES:
    raise UserError(f'config.optimizer.schedule={config.schedule!r}; use one of {SCHEDULES}')


def make_schedule(config: ConfigDict, *, steps_per_epoch: float, total_steps: int, batch_size: int
                  ) -> Callable:
  """Returns the learning rate as a function of the number of updates made so far.

  Linear from 0 over `warmup_epochs` (the first update already moves: its rate is peak / warm-up
  steps), then

  - 'cosine': peak * (1 + cos(pi t)) / 2, t from 0 after the warm-up to 1 at the last step
    (Loshchilov & Hutter 2017, one cycle);
  - 'step': peak * decay_factor ** (number of `boundaries`, in epochs, passed);
  - 'constant'.

  Args:
    config: `config.optimizer`. `learning_rate_batch` > 0 multiplies `learning_rate` by
      batch_size / learning_rate_batch (Goyal et al. 2017).
    steps_per_epoch: updates an epoch.
    total_steps: updates of the whole run.
    batch_size: images of one update over all devices.

  Returns:
    A function of a step (int or int32 array) to a float32 scalar.
  """
  check_schedule(config)
  peak = config.learning_rate
  if config.learning_rate_batch:
    peak = peak * batch_size / config.learning_rate_batch
  warmup = round(config.warmup_epochs * steps_per_epoch)
  if warmup >= total_steps:
    raise UserError(
        f'config.optimizer.warmup_epochs={config.warmup_epochs} takes {warmup} steps, but the '
        f'whole run has {total_steps}; shorten the warm-up or train longer')
  boundaries = jnp.asarray(
      [round(epoch * steps_per_epoch) for epoch in config.boundaries], jnp.float32)

  # Optax's schedules round differently (the cosine by up to 5e-5 of the rate), and a run of an
  # earlier version would not resume bit for bit.
  def schedule(step: Any) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    if config.schedule == 'cosine':
      progress = jnp.clip((step - warmup) / (total_steps - warmup), 0, 1)
      rate = peak * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif config.schedule == 'step':
      rate = peak * config.decay_factor ** jnp.sum(step >= boundaries).astype(jnp.float32)
    else:
      rate = jnp.asarray(peak, jnp.float32)
    if warmup:
      rate = jnp.where(step < warmup, peak * (step + 1) / warmup, rate)
    return jnp.asarray(rate, jnp.float32)

  return schedule


def _decay_mask(decay_mask: str) -> Callable | None:
  if decay_mask not in DECAY_MASKS:
    raise UserError(f'config.optimizer.decay_mask={decay_mask!r}; use one of {DECAY_MASKS}')
  if decay_mask == 'all':
    return None
  return lambda params: jax.tree.map_with_path(
      lambda path, _: path_name(path).rsplit('/', 1)[-1] == 'kernel', params)


def _sgd(config: ConfigDict, decay: optax.GradientTransformation) -> Any:
  # PyTorch's order: the decay joins the gradient before the momentum sees it.
  parts = [decay]
  if config.momentum:
    parts.append(optax.trace(decay=config.momentum, nesterov=config.nesterov))
  return optax.chain(*parts)


def _adamw(config: ConfigDict, decay: optax.GradientTransformation) -> Any:
  return optax.chain(optax.scale_by_adam(b1=config.beta1, b2=config.beta2), decay)


def _lamb(config: ConfigDict, decay: optax.GradientTransformation) -> Any:
  return optax.chain(
      optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=1e-6),
      decay,
      optax.scale_by_trust_ratio())


OPTIMIZERS = {'sgd': _sgd, 'adamw': _adamw, 'lamb': _lamb}


def make_optimizer(config: ConfigDict, freeze: str = '') -> optax.GradientTransformation:
  """Returns the update direction of `config.optimizer`; the train step multiplies it by -rate.

  - 'sgd': g + weight_decay p, then b = momentum b + g (PyTorch's SGD; Nesterov by a field);
  - 'adamw': Adam's direction + weight_decay p (Loshchilov & Hutter 2019);
  - 'lamb': the same, scaled for each array by |p| / |direction| (You et al. 2020).

  `clip_norm` > 0 first scales the gradients to that global norm. `decay_mask` 'all' decays every
  parameter, as the papers do; 'kernels' spares biases and normalisation.

  Args:
    config: `config.optimizer`.
    freeze: a regular expression. Parameters whose path ('stage1/block0/conv1/kernel') it finds
      (`re.search`) get neither update nor weight decay, and count in no gradient norm.

  Returns:
    An `optax.GradientTransformation`.
  """
  if config.name not in OPTIMIZERS:
    raise UserError(
        f'config.optimizer.name={config.name!r}; use one of {tuple(OPTIMIZERS)}')
  mask = _decay_mask(config.decay_mask)
  decay = (
      optax.add_decayed_weights(config.weight_decay, mask)
      if config.weight_decay else optax.identity())
  optimizer = OPTIMIZERS[config.name](config, decay)
  if config.clip_norm:
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
  if not freeze:
    return optimizer
  return optax.partition(
      {'train': optimizer, 'freeze': optax.set_to_zero()},
      lambda params: jax.tree.map(
          lambda frozen: 'freeze' if frozen else 'train', frozen_mask(params, freeze)))


def frozen_mask(params: Any, freeze: str) -> Any:
  """Returns True for every parameter that the regular expression `freeze` finds in its path."""
  try:
    pattern = re.compile(freeze)
  except re.error as error:
    raise UserError(f'config.freeze={freeze!r} is not a regular expression: {error}') from None
  return jax.tree.map_with_path(
      lambda path, _: bool(freeze) and pattern.search(path_name(path)) is not None, params)


def frozen_modules(params: Any, freeze: str) -> frozenset[tuple[str, ...]]:
  """Returns the paths of the modules all of whose own parameters are frozen."""
  mask = flax.traverse_util.flatten_dict(frozen_mask(params, freeze))
  modules = {}
  for path, frozen in mask.items():
    modules[path[:-1]] = modules.get(path[:-1], True) and frozen
  return frozenset(path for path, frozen in modules.items() if frozen)


def trainable(grads: Any, freeze: str) -> Any:
  """Returns `grads` with zeros in place of the frozen parameters' gradients."""
  if not freeze:
    return grads
  return jax.tree.map(
      lambda grad, frozen: jnp.zeros_like(grad) if frozen else grad,
      grads, frozen_mask(grads, freeze))


def frozen_parameters(params: Any, freeze: str) -> int:
  """Returns the number of parameters that `config.freeze` holds still.

  Args:
    params: nested dictionaries of arrays or shapes.
    freeze: see `make_optimizer`.

  Raises:
    UserError: it finds no parameter, or every one.
  """
  mask = jax.tree.leaves(frozen_mask(params, freeze))
  total = trees.count(params)
  frozen = trees.count([leaf for leaf, held in zip(jax.tree.leaves(params), mask) if held])
  if freeze and frozen in (0, total):
    names = list(trees.by_name(params))
    near = near_matches(freeze, {part for name in names for part in name.split('/')})
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    what = 'every parameter, so that nothing would be trained' if frozen else f'no parameter{hint}'
    raise UserError(f'config.freeze={freeze!r} finds {what}; it is searched for in paths '
                    f'such as {names[0]} and {names[-1]}')
  return frozen
