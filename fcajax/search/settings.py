"""The keys of `config.search`: their defaults, their meaning and their checks."""
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from fcajax.errors import UserError, did_you_mean

Batching = Literal['auto', 'vmap', 'loop']


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """Keys of `config.search`.

  Attributes:
    base: work directory or .safetensors file of the network without attention; '' trains it, by
      the rest of the config, into WORKDIR/base.
    grid: (rows, columns) of the frequencies to score.
    num_epochs: epochs of fine-tuning.
    num_steps: updates of fine-tuning; 0 takes `num_epochs`.
    learning_rate: at the start of fine-tuning; `config.optimizer.learning_rate_batch` applies.
    schedule: 'cosine', 'step' or 'constant'.
    seeds: number of runs of each candidate, each with its own batches and attention weights.
    parallel: number of candidates trained together, limited by memory.
    batching: see `fcajax.search.fine_tuning.FineTuning`.
    top_k: the values of k in step 2; () skips step 2.
    select: number of frequencies to select; 0 takes the best k of step 2.
  """
  base: str = ''
  grid: tuple[int, int] = (7, 7)
  num_epochs: float = 20.0
  num_steps: int = 0
  learning_rate: float = 0.02
  schedule: str = 'cosine'
  seeds: int = 3
  parallel: int = 7
  batching: Batching = 'auto'
  top_k: tuple[int, ...] = (1, 2, 4, 8, 16)
  select: int = 0

  @classmethod
  def from_config(cls, config: Mapping[str, Any] | Any) -> 'SearchSettings':
    """Reads a dict or ConfigDict; raises UserError for an unknown key or a value out of range."""
    values = dict(config.items())
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
      if key not in known:
        raise UserError(f'config.search.{key} is unknown; {did_you_mean(key, known)}')
    for key in ('grid', 'top_k'):
      if key in values:
        values[key] = tuple(int(value) for value in values[key])
    _check({field.name: field.default for field in dataclasses.fields(cls)} | values)
    return cls(**values)


def _check(values):
  """Raises UserError for a value that no search can use."""
  for key in ('seeds', 'parallel'):
    if values[key] < 1:
      raise UserError(f'config.search.{key}={values[key]} must be at least 1')
  if values['batching'] not in get_args(Batching):
    raise UserError(f'config.search.batching={values["batching"]!r}; '
                    f'use one of {get_args(Batching)}')
  grid = values['grid']
  if len(grid) != 2 or min(grid) < 1:
    raise UserError(f'config.search.grid={grid} must be a pair of positive ints')
  if values['num_steps'] <= 0 and values['num_epochs'] <= 0:
    raise UserError('set config.search.num_epochs or config.search.num_steps above 0')
  count = grid[0] * grid[1]
  for k in (*values['top_k'], values['select'] or 1):
    if not 1 <= k <= count:
      raise UserError(f'config.search.top_k={values["top_k"]}, select={values["select"]}: the '
                      f'grid {grid} has 1 to {count} frequencies')
