"""Trees of arrays: names of leaves, and how two trees differ."""
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
  """Returns 'stage1/block0/conv1/kernel' for a key path of `jax.tree_util`."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def by_name(tree: Any) -> dict[str, Any]:
  """Returns {'stage1/block0/conv1/kernel': leaf} of a tree."""
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns {'params/head/kernel': shape} of a tree of arrays, shapes or metadata."""
  return {name: tuple(leaf.shape) for name, leaf in by_name(tree).items()}


def count(tree: Any) -> int:
  """Returns the number of scalars in a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def differences(given: Mapping[str, Any], expected: Mapping[str, Any], *,
                there: str = 'there', here: str = 'here',
                ignore: Callable[[str], bool] = lambda name: False) -> list[str]:
  """Compares shapes by name.

  Args:
    given: name -> shape of a file or another tree.
    expected: name -> shape that is needed.
    there, here: what the lines call the two.
    ignore: True for the names of leaves that may differ.

  Returns:
    A line for each difference, in the order of the names; [] if there is none.
  """
  lines = []
  for name in sorted({*given, *expected}):
    if given.get(name) == expected.get(name) or ignore(name):
      continue
    if name not in given:
      lines.append(f'{name} {expected[name]} is missing {there}')
    elif name not in expected:
      lines.append(f'{name} {given[name]} does not exist {here}')
    else:
      lines.append(f'{name} is {given[name]} {there} and {expected[name]} {here}')
  return lines


def listing(lines: Iterable[str], limit: int = 8) -> str:
  """Returns the first lines, indented, one below the other, and how many more there are."""
  lines = list(lines)
  more = [f'and {len(lines) - limit} more'] if len(lines) > limit else []
  return '\n'.join(f'  {line}' for line in [*lines[:limit], *more])
