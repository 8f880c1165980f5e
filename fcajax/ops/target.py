"""The platform that programs are traced for: one switch for every choice that depends on it."""
import contextlib
from collections.abc import Iterator

import jax

from fcajax.errors import UserError, did_you_mean

PLATFORMS = ('cpu', 'gpu', 'tpu')
_GPUS = ('cuda', 'rocm')  # what `jax.export` calls a GPU

# A part of the key of JAX's caches: under another target, `jit` traces a function again.
_target = jax.make_user_context(default_value=None)


@contextlib.contextmanager
def target(*platforms: str) -> Iterator[None]:
  """Traces for `platforms` instead of the default backend while the context is open.

      with fcajax.target('tpu'):
        exported = jax.export.export(jax.jit(apply), platforms=['tpu'])(variables, images)

  Convolutions, pooling and Fourier transforms have faster equivalents on some platforms; the
  target decides which of them a traced program holds. With several platforms the program suits all
  of them. Results agree up to rounding.

  Args:
    *platforms: one or more of 'cpu', 'gpu' (also spelled 'cuda' or 'rocm') and 'tpu'.

  Raises:
    UserError: no platform, or an unknown one.
  """
  if not platforms:
    raise UserError(f'target() needs a platform; {did_you_mean("", PLATFORMS)}')
  for name in platforms:
    if name not in (*PLATFORMS, *_GPUS):
      raise UserError(f'unknown platform {name!r}: {did_you_mean(name, (*PLATFORMS, *_GPUS))}')
  names = sorted({'gpu' if name in _GPUS else name for name in platforms})
  with _target(tuple(names)):
    yield


def targets() -> tuple[str, ...]:
  """Returns the platforms to trace for: those of `target`, or the default backend of JAX."""
  return _target.value or (jax.default_backend(),)


def is_cpu_only() -> bool:
  """Returns True if the program is traced for a CPU and for nothing else."""
  return targets() == ('cpu',)
