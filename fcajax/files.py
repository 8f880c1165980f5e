"""Files that are written whole or not at all."""
import json
import os
import pathlib
from typing import Any


def write_json(path: str | pathlib.Path, value: Any) -> None:
  """Writes a JSON file whole or not at all; it is on the disk when this returns."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes a text file whole or not at all; it is on the disk when this returns."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)
