"""Array types with shapes for signatures: `Float[Array, 'n h w c']`.

The types come from jaxtyping. If jaxtyping is not installed, each of them is `Any`, so that
operations and layers need only JAX and Flax. The test suite checks the types at run time with
beartype; programs that use the library do not check them.
"""
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

Array = jax.Array
NumpyArray = np.ndarray
# For functions that take NumPy arrays as well as JAX arrays.
AnyArray = jax.Array | np.ndarray

if TYPE_CHECKING:
  from jaxtyping import Bool, Complex, Float, Int, Integer, Key, Num, PyTree, Real, Shaped, UInt8
else:
  try:
    from jaxtyping import Bool, Complex, Float, Int, Integer, Key, Num, PyTree, Real, Shaped, UInt8
  except ModuleNotFoundError:

    class _Untyped:
      """Replaces a type of jaxtyping, so that `Float[Array, 'n']` is `Any`."""

      def __class_getitem__(cls, item: Any) -> Any:
        del item
        return Any

    Bool = Complex = Float = Int = Integer = Key = Num = PyTree = Real = Shaped = UInt8 = _Untyped

__all__ = [
    'AnyArray', 'Array', 'Bool', 'Complex', 'Float', 'Int', 'Integer', 'Key', 'Num', 'NumpyArray',
    'PyTree', 'Real', 'Shaped', 'UInt8']
