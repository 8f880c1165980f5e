"""Where metrics go: `metrics.jsonl`, and TensorBoard events without TensorFlow or PyTorch."""
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from fcajax.files import write_text

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD = 'tensorboard'


def _json_number(value: Any) -> Any:
  return value if not isinstance(value, float) or math.isfinite(value) else None


def read_rows(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of `metrics.jsonl`; lines that are damaged or unfinished are left out."""
  path = pathlib.Path(workdir) / METRICS_FILE
  rows = []
  if path.is_file():
    for line in path.read_text(errors='replace').splitlines():
      try:
        row = json.loads(line)
      except ValueError:
        continue
      if isinstance(row, dict) and isinstance(row.get('step'), int) and (
          isinstance(row.get('epoch'), int | float) and 'split' in row):
        rows.append(row)
  return rows


class MetricWriter:
  """Appends metrics to a work directory.

  A row of `metrics.jsonl` is {"step": ..., "epoch": ..., "split": "train" | "evaluation", ...}.
  Rows later than `step`, which a run that died left behind, are dropped first.

  Args:
    workdir: the work directory.
    step: where the run starts.
    evaluated_anew: whether it starts with an evaluation, in place of an earlier one of this step.
  """

  def __init__(self, workdir: str | pathlib.Path, step: int = 0, evaluated_anew: bool = False):
    workdir = pathlib.Path(workdir)
    rows = [row for row in read_rows(workdir) if row['step'] <= step and not (
        evaluated_anew and row['step'] == step and row['split'] == 'evaluation')]
    self._path = workdir / METRICS_FILE
    write_text(self._path, ''.join(json.dumps(row) + '\n' for row in rows))
    self._file = self._path.open('a')
    folder = workdir / TENSORBOARD
    folder.mkdir(exist_ok=True)
    # TensorBoard reads the files of a run in the order of their names.
    name = f'events.out.tfevents.{time.time_ns() // 1000}.{os.getpid()}'
    self._events_file = (folder / name).open('wb')
    self._events = RecordWriter(self._events_file)
    self._events.write(Event(
        wall_time=time.time(), file_version='brain.Event:2').SerializeToString())

  def write(self, *, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
    """Writes one row, `values` being the metrics."""
    row = {'step': step, 'epoch': round(epoch, 4), 'split': split}
    row |= {name: _json_number(value) for name, value in values.items()}
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    summary = Summary(value=[
        Summary.Value(tag=f'{split}/{name}', simple_value=value)
        for name, value in values.items()
    ])
    self._events.write(Event(
        wall_time=time.time(), step=step, summary=summary).SerializeToString())
    self._events_file.flush()

  def image(self, *, step: int, tag: str, path: str | pathlib.Path) -> None:
    """Adds a PNG file to the TensorBoard events."""
    image = Summary.Image(encoded_image_string=pathlib.Path(path).read_bytes(), colorspace=3)
    self._events.write(Event(
        wall_time=time.time(), step=step,
        summary=Summary(value=[Summary.Value(tag=tag, image=image)])).SerializeToString())
    self._events_file.flush()

  def close(self) -> None:
    """Closes the files."""
    self._file.close()
    self._events_file.close()
