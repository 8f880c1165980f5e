"""The random streams of the networks, and shapes of variables without computing them."""
from typing import Any

import jax

from fcajax.typing import Array, Key, PyTree

# Drawn from in training: `model.apply(..., rngs={'dropout': ..., 'gate': ...})`.
APPLY_STREAMS = ('dropout', 'gate')
INIT_STREAMS = ('params', *APPLY_STREAMS)


def init_keys(key: Key[Array, '']) -> dict[str, Key[Array, '']]:
  """Returns what `model.init` takes as its first argument: the key for every stream."""
  return dict.fromkeys(INIT_STREAMS, key)


def variable_shapes(model: Any, *inputs: PyTree) -> PyTree:
  """Returns the variables of a network as `jax.ShapeDtypeStruct`s; nothing is computed.

  Args:
    model: a Linen module whose `__call__` takes `train`.
    *inputs: its inputs, arrays or `jax.ShapeDtypeStruct`s.
  """
  return jax.eval_shape(
      lambda x: model.init(init_keys(jax.random.key(0)), *x, train=False), inputs)
