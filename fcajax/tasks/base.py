"""What the trainer asks of a task: the seam between training and what a network is trained for.

A task is a class. The trainer creates one object of it for a run, `Task(config, data)`, and then

1. asks for the network (`create_model`, `adapt_model`) and what to store about it (`metadata`);
2. compiles the traced methods into its two programs. Training: `prepare`, `arguments`, the
   network, `loss`. Evaluation: `prepare`, `arguments`, the network, `evaluate`;
3. gives every evaluation a `Collector`, which sees the host's batches and the outputs of single
   examples, and judges them at the end;
4. prints, plots and picks the best checkpoint by the `Metric`s that the class declares.

A batch is a dictionary (any pytree) of arrays with a leading axis of examples. Evaluation batches
are padded to one size and have 'mask', float32 `[N]`: 0 for padding, which must count nowhere.
docs/own_task.md shows a whole task.
"""
import abc
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from fcajax.errors import UserError
from fcajax.preprocessing.spec import Preprocessing, device_transform
from fcajax.tasks import network
from fcajax.tasks.metrics import Mean
from fcajax.typing import Array, Float, UInt8

Batch = Any
Outputs = Any
Rows = Any


@dataclasses.dataclass(frozen=True)
class Metric:
  """A number that a task reports, and how to show it.

  Attributes:
    name: its key in `metrics.jsonl` and `summary.json`.
    label: how lines of text call it; '' is `name`.
    format: a format specification; one that ends in '%' also makes plots show percent.
    higher_is_better: False for losses and errors.
    title: of its plot; '' is `label`.
  """

  name: str
  label: str = ''
  format: str = '.4f'
  higher_is_better: bool = True
  title: str = ''

  def score(self, values: Mapping[str, Any]) -> float:
    """Returns the number by which checkpoints are compared: higher is better, NaN is worst."""
    value = values.get(self.name)
    if value is None or math.isnan(value):
      return -math.inf
    return float(value if self.higher_is_better else -value)

  def text(self, values: Mapping[str, Any]) -> str:
    """Returns 'label value', or '' if `values` lacks the metric."""
    value = values.get(self.name)
    return '' if value is None else f'{self.label or self.name} {value:{self.format}}'


LOSS = Metric('loss', higher_is_better=False, title='Loss')


@runtime_checkable
class Data(Protocol):
  """What training needs of a data set; `input_pipeline.create` returns one.

  Attributes:
    num_train, num_evaluation: examples, over all processes.
    class_names: what the outputs mean, in their order.
    preprocessing: how an image file becomes the network's input.
    device_augment: None, or a pure function (key, images) -> images inside the training step.
  """

  num_train: int
  num_evaluation: int
  class_names: list[str]
  preprocessing: Preprocessing
  device_augment: Any

  def train_iterator(self) -> Iterator[Batch]:
    """Returns an endless iterator of batches with `get_state()`, `set_state(state)`, `close()`."""

  def evaluation_batches(self) -> Iterable[Batch]:
    """Yields this process's share of every evaluation example once, in padded batches.

    All processes yield the same number of batches.
    """

  def corrupt_files(self) -> list[str]:
    """Returns the names of the files that were skipped so far."""


class Collector:
  """Takes what one evaluation yields; this one needs the sums on the devices alone.

  A task whose metrics need every example's outputs on the host (average precision) overrides all
  methods but `draw`. The methods are called on every process.
  """

  def keep(self, batch: Batch) -> Any:
    """Returns what to remember of a host batch (this process's examples) until its outputs come.

    None leaves the outputs of this batch on the devices. It is called from another thread, a few
    batches ahead of `add`.
    """
    del batch
    return None

  def add(self, kept: Any, rows: Rows) -> None:
    """Takes the rows of `Task.evaluate` of one batch.

    Args:
      kept: what `keep` returned for it.
      rows: NumPy arrays of this process's examples, in the order of the host batch.
    """

  def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of the whole evaluation, the same on every process.

    `fcajax.distributed.gather` gives every process the results of all.

    Args:
      sums: of `Task.evaluate` over all batches and devices: floats for averages, else arrays.
    """
    return {name: value for name, value in sums.items() if isinstance(value, float)}

  def draw(self, directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes pictures of predictions and returns their files; on the first process alone."""
    del directory
    return []


@dataclasses.dataclass(frozen=True)
class Prediction(abc.ABC):
  """What a trained network says about one file.

  Attributes:
    file: the image or clip.
  """

  file: pathlib.Path

  @abc.abstractmethod
  def to_dict(self) -> dict[str, Any]:
    """Returns it as JSON-able values."""

  @abc.abstractmethod
  def text(self) -> str:
    """Returns it as a line of text, without the file's name."""

  def draw(self) -> UInt8[np.ndarray, 'h w 3']:
    """Returns a picture of it, RGB; for tasks with 'out' among their `predict_options`."""
    raise NotImplementedError(f'{type(self).__name__} does not say how it is drawn')

  def results(self, image_id: int) -> list[dict[str, Any]]:
    """Returns it as rows of a results file in COCO's format, where there is one for the task.

    Args:
      image_id: of the file.
    """
    raise NotImplementedError(f'{type(self).__name__} has no results in COCO\'s format')


class Task(abc.ABC):
  """What a network is trained for. `loss` and `evaluate` have to be written; the rest has defaults.

  The defaults fit networks that take `batch['image']` alone.

  Class attributes:
    name: in `config.task` and `metadata.json`.
    best: the metric of an evaluation that picks the best checkpoint.
    train_metrics, eval_metrics: what the lines of progress show, in this order.
    curves: what `learning_curves.png` shows, a panel each.
    rng_streams: names of the random number streams that the network draws from in training.
    shared_rng_streams: those of them that are the same on every device: a network that draws for
      each image by the image's own number then does not depend on how many devices there are.
    examples: what the examples are called.
    predict_options: names of what `predict` takes besides files, as far as `fcajax predict` has a
      flag of that name; 'out' if its predictions can be drawn.
    model_example: arguments of the network that the data decide, with values that can stand for
      any data set while only the config is checked.

  Args:
    config: the run's config, see `configs/base/settings.py`.
    data: the run's data set.
  """

  name: ClassVar[str]
  best: ClassVar[Metric]
  train_metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
  eval_metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
  curves: ClassVar[tuple[Metric, ...]] = (LOSS,)
  rng_streams: ClassVar[tuple[str, ...]] = ('dropout', 'gate')
  shared_rng_streams: ClassVar[tuple[str, ...]] = ()
  examples: ClassVar[str] = 'images'
  predict_options: ClassVar[tuple[str, ...]] = ()
  model_example: ClassVar[Mapping[str, Any]] = {'num_classes': 2}

  def __init__(self, config: ConfigDict, data: Data):
    self.class_names = list(data.class_names)
    self.preprocessing = data.preprocessing
    self.augment = data.device_augment
    self.transform = device_transform(data.preprocessing, config.dtype)

  # The network, on the host.

  @classmethod
  def check_config(cls, config: ConfigDict) -> None:
    """Raises UserError for values of the config that cannot work, before the data is opened."""
    network.create_model(config, **cls.model_example)

  def model_arguments(self) -> dict[str, Any]:
    """Returns the arguments of the network that the data decide."""
    return {'num_classes': len(self.class_names)}

  def create_model(self, config: ConfigDict) -> nn.Module:
    """Returns the network of `config.model`."""
    return network.create_model(config, **self.model_arguments())

  def adapt_model(self, model: nn.Module, config: ConfigDict, norm_axis: str | None) -> nn.Module:
    """Returns the model with what the run decides, as far as it has fields for it.

    Args:
      model: of `create_model`, or the user's own.
      config: the run's config.
      norm_axis: the mapped axis over which batch norms synchronise, or None.
    """
    return network.adapt_model(model, config, norm_axis, self.model_arguments())

  def freeze(self, config: ConfigDict, model: nn.Module) -> str:
    """Returns the regular expression of the parameters that are not trained; '' for none.

    Args:
      config: the run's config.
      model: of `adapt_model`.
    """
    del model
    return config.freeze

  def metadata(self, config: ConfigDict, model: nn.Module | None) -> dict[str, Any]:
    """Returns what `metadata.json` says: what is needed to use the trained network.

    Args:
      config: the run's config.
      model: the user's own network, or None for that of the config.
    """
    return {
        'task': self.name,
        'model': network.model_description(config, model, self.model_arguments()),
        'class_names': self.class_names,
        'preprocessing': network.preprocessing_description(self.preprocessing),
    }

  def describe_data(self) -> str:
    """Returns what the first lines of a run say about the data, after the number of examples."""
    names = ', '.join(map(str, self.class_names[:5]))
    more = ', ...' if len(self.class_names) > 5 else ''
    return f'of {len(self.class_names)} classes ({names}{more})'

  # Traced into the compiled programs: pure functions.

  def sample_batch(self) -> Batch:
    """Returns shapes (`jax.ShapeDtypeStruct`) of an evaluation batch of one, for `model.init`."""
    return {'image': jax.ShapeDtypeStruct((1, *self.preprocessing.shape, 3), 'uint8')}

  def prepare(self, key: jax.Array | None, batch: Batch, train: bool) -> Batch:
    """Returns the batch as loss and network take it: augmented on the device, normalised.

    Args:
      key: random key of this step, device and slice; None in evaluation.
      batch: as the data set yields it.
      train: whether this is a training step.
    """
    image = batch['image']
    if train and self.augment is not None:
      image = self.augment(key, image)
    return {**batch, 'image': self.transform(image)}

  def arguments(self, batch: Batch, train: bool) -> tuple[Any, ...]:
    """Returns the network's positional arguments, from a prepared batch.

    The network is called `model(*arguments, train=train)`, and gets `progress` (the fraction of
    training done) where it takes it. A detector can be given the ground truth in training.
    """
    del train
    return (batch['image'],)

  @abc.abstractmethod
  def loss(self, outputs: Outputs, batch: Batch) -> tuple[
      Float[Array, '...'] | Mean | dict[str, Float[Array, '...'] | Mean], dict[str, Any]]:
    """Returns (losses, metrics) of a training step, from a prepared batch.

    Args:
      outputs: what the network returned in training.
      batch: the prepared batch.

    Returns:
      losses: `[N]`, a scalar, or a `Mean`; or a dictionary of such terms, which are added up and
        logged under their names. Every term is averaged over examples and devices, a `Mean` by its
        weights.
      metrics: name -> `[N]`, scalar or `Mean`, averaged for the log.
    """

  @abc.abstractmethod
  def evaluate(self, outputs: Outputs, batch: Batch) -> tuple[dict[str, Any], Rows]:
    """Returns (sums, rows) of an evaluation batch.

    Args:
      outputs: what the network returned in evaluation.
      batch: the prepared batch, with 'mask'.

    Returns:
      sums: name -> `clu.metrics.Average` (see `metrics.averages`) or an array; added over batches
        and devices, then given to `Collector.metrics`.
      rows: a pytree of arrays with the batch's leading axis, for `Collector.add`; () for none.
    """

  # Evaluation and pictures, on the host.

  def collector(self, *, pictures: bool) -> Collector:
    """Returns the collector of one evaluation.

    Args:
      pictures: whether its `draw` will be called: True on the first process, at the end of a run.
    """
    del pictures
    return Collector()

  def draw(self, directory: pathlib.Path, model: nn.Module, variables: Mapping[str, Any],
           data: Data) -> list[pathlib.Path]:
    """Writes pictures of the trained network and returns their files; first process alone.

    Args:
      directory: the work directory.
      model: the network as it was trained.
      variables: its variables, NumPy.
      data: the run's data set.
    """
    del directory, model, variables, data
    return []

  # Use of the trained network.

  @classmethod
  def predict(cls, opened: Any, files: list[pathlib.Path], **options: Any) -> Iterator[Prediction]:
    """Yields a prediction for each file, in order.

    Args:
      opened: a trained network: has `model`, `variables`, `preprocessing`, `class_names` and
        `metadata`.
      files: image files.
      **options: of the task, such as how many classes to name; see `predict_options`. A task with
        'named' among them is told which files the user named: damage in one of these is an error,
        and other files, which were found in a folder, are left out.
    """
    raise UserError(f'the task {cls.name!r} does not say how to predict on files')

  @classmethod
  def exported_function(cls, opened: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns what `fcajax export` writes: a pure function with the weights inside, and its inputs.

    Args:
      opened: as of `predict`.

    Returns:
      (function, inputs): inputs are `jax.ShapeDtypeStruct`s, perhaps with symbolic sizes.
    """
    raise UserError(f'the task {cls.name!r} does not say what to export')
