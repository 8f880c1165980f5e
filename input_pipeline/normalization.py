"""Settings to `Preprocessing`: which statistics normalise the input, checked before any work."""
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from fcajax.errors import UserError
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.constants import IMAGENET_MEAN, IMAGENET_STD
from fcajax.preprocessing.spec import Preprocessing
from fcajax.selection import coefficients


def _statistics_path(settings):
  """`data.statistics`, an existing file, or an error that says how to make it."""
  path = settings.statistics
  if path and pathlib.Path(path).is_file():
    return path
  command = f'fcajax statistics --config CONFIG --output {path or "FILE"}'
  others = "'none' or 'published'" if settings.representation == 'dct' else "'none'"
  reason = f"data.statistics='{path}' does not exist" if path else 'data.statistics is empty'
  raise UserError(f'representation={settings.representation!r} is normalised with the statistics '
                   f'of the training set, but {reason}; make the file once with\n  {command}\n'
                   f'or set data.normalization to {others}')


def read_pixel_statistics(
    path: str | os.PathLike, representation: str) -> tuple[Sequence[float], Sequence[float]]:
  """Reads (mean, std) of three channels out of a file of the statistics command.

  Raises:
    UserError: statistics of another representation, or damaged.
  """
  try:
    content = json.loads(pathlib.Path(path).read_text())
  except json.JSONDecodeError as error:
    raise UserError(f"data.statistics='{path}' is not JSON ({error})") from error
  found = content.get('representation', 'dct')
  if found != representation:
    raise UserError(f"data.statistics='{path}' is of representation={found!r}, the config has "
                     f'{representation!r}; compute them again')
  return tuple(content['mean']), tuple(content['std'])


def _pixel_statistics(settings):
  """(mean, std) of three channels, in 0..1."""
  if settings.normalization == 'none':
    return (0.0,) * 3, (1.0,) * 3
  if settings.statistics:
    return read_pixel_statistics(_statistics_path(settings), settings.representation)
  rgb = tuple(settings.mean), tuple(settings.std)
  if settings.representation == 'ycbcr' and rgb == (IMAGENET_MEAN, IMAGENET_STD):
    _statistics_path(settings)
  return rgb


def _coefficient_settings(settings):
  """The fields of `Preprocessing` that belong to representation 'dct'."""
  subset = coefficients.coefficient_subset(settings.coefficients)
  fields = {'chroma': settings.chroma,
            'coefficients': coefficients.portable_spec(settings.coefficients)}
  std = None
  if settings.normalization != 'none':
    source = ('published' if settings.normalization == 'published'
              else _statistics_path(settings))
    mean, std = coefficients.coefficient_statistics(
        source, subset, chroma=settings.chroma if source != 'published' else None,
        image_size=settings.image_size if source != 'published' else None)
    fields.update(coefficient_mean=mean, coefficient_std=std)
  if settings.dct_on == 'host':
    if settings.dct_bits == 8 and settings.normalization != 'statistics':
      raise UserError("data.dct_bits=8 needs the standard deviation of each coefficient; set "
                       "data.normalization='statistics' with data.statistics, or dct_bits=16")
    fields['coefficient_scale'] = host_formats.coefficient_scale(subset, settings.dct_bits, std)
  return fields


def make_preprocessing(settings: Any) -> Preprocessing:
  """Returns what the settings make of an image before it enters the network.

  Args:
    settings: `DataSettings`, or another dataclass with its keys of sizes and normalisation.

  Raises:
    UserError: statistics that are missing, or of another subset, chroma or size; a subset that
      does not exist; a size that is not whole blocks.
  """
  common = {'image_size': settings.image_size, 'resize_size': settings.resize_size,
            'representation': settings.representation}
  if settings.representation == 'dct':
    # Sizes first: their message is the plainest.
    Preprocessing(**common, chroma=settings.chroma)
    return Preprocessing(**common, **_coefficient_settings(settings))
  mean, std = _pixel_statistics(settings)
  return Preprocessing(**common, mean=mean, std=std)
