"""What all plots share: colours and how a figure becomes a file."""
import pathlib
from typing import Any

from fcajax.errors import UserError, writing

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')


def save_figure(figure: Any, path: str | pathlib.Path, dpi: int = 150) -> None:
  """Writes a matplotlib figure; the suffix of `path` (.png, .svg, .pdf, ...) names the format.

  Raises:
    UserError: an unknown suffix, or a file that cannot be written.
  """
  known = sorted(figure.canvas.get_supported_filetypes())
  if pathlib.Path(path).suffix[1:].lower() not in known:
    raise UserError(f"cannot write a picture to '{path}'; its name must end in "
                    f'.{", .".join(known)}')
  with writing(path):
    figure.savefig(path, dpi=dpi)


def count_of_images(count: int) -> str:
  """Returns '1 image' or 'N images'."""
  return f'{count:,} image{"" if count == 1 else "s"}'
