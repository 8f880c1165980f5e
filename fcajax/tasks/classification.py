"""Single-label image classification: cross entropy, top-1 and top-5 accuracy."""
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import export
from ml_collections import ConfigDict

from fcajax.analysis import gate_heat_map
from fcajax.inference.predict import classify, probabilities_function
from fcajax.tasks import metrics
from fcajax.tasks.base import LOSS, Batch, Collector, Data, Metric, Prediction, Task
from fcajax.tasks.samples import Samples
from fcajax.typing import AnyArray, Array, Float, Int


def top_k_correct(logits: Float[AnyArray, 'n classes'], labels: Int[AnyArray, ' n'], k: int
                  ) -> Float[Array, ' n']:
  """Returns 1 for every example whose label is among its `k` largest logits, else 0.

  A tie counts against the model if the other class has the smaller index, as in a stable
  descending sort. With fewer than `k` classes every example is correct.
  """
  of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  before = jnp.arange(logits.shape[-1])[None] < labels[:, None]
  rank = jnp.sum((logits > of_label) | ((logits == of_label) & before), axis=-1)
  # A comparison with NaN is false everywhere, which would count as correct.
  return ((rank < k) & jnp.isfinite(of_label[:, 0])).astype(jnp.float32)


def cross_entropy(logits: Float[AnyArray, 'n classes'], labels: Int[AnyArray, ' n'],
                  label_smoothing: float = 0.0) -> Float[Array, ' n']:
  """Returns the softmax cross entropy of each example.

  Label smoothing s gives the label 1 - s + s / classes and every other class s / classes
  (Szegedy et al. 2016, section 7), as PyTorch's `CrossEntropyLoss(label_smoothing=s)`.
  """
  logits = logits.astype(jnp.float32)
  targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
  return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


@dataclasses.dataclass(frozen=True)
class RankedClasses(Prediction):
  """The most probable classes of an image.

  Attributes:
    top: (class name, probability), best first.
  """

  top: list[tuple[str, float]]

  def to_dict(self) -> dict[str, Any]:
    return {'image': str(self.file), 'top': [[name, round(p, 6)] for name, p in self.top]}

  def text(self) -> str:
    return ', '.join(f'{name} {100 * p:.1f}%' for name, p in self.top)


class Classification(Task):
  """One class for each image.

  Batches hold 'image' (what the host sends) and 'label' int32 `[N]`. The network returns logits
  `[N, classes]`. `config.label_smoothing` applies to the training loss alone.
  """

  name = 'classification'
  best = Metric('accuracy', 'top-1', '.2%', title='Top-1 accuracy')
  train_metrics = (LOSS, Metric('accuracy', format='.1%'))
  eval_metrics = (LOSS, best, Metric('top5', 'top-5', '.2%'))
  curves = (LOSS, best)
  predict_options = ('top', 'batch_size', 'named')

  def __init__(self, config: ConfigDict, data: Data):
    super().__init__(config, data)
    self.label_smoothing = config.label_smoothing

  def loss(self, outputs: Float[Array, 'n classes'], batch: Batch
           ) -> tuple[Float[Array, ' n'], dict[str, Float[Array, ' n']]]:
    losses = cross_entropy(outputs, batch['label'], self.label_smoothing)
    return losses, {'accuracy': top_k_correct(outputs, batch['label'], 1)}

  def evaluate(self, outputs: Float[Array, 'n classes'], batch: Batch
               ) -> tuple[dict[str, Any], Float[Array, 'n classes']]:
    """Returns sums of the plain cross entropy, top-1 and top-5; rows are class probabilities."""
    logits, labels = outputs.astype(jnp.float32), batch['label']
    sums = metrics.averages(
        batch['mask'], loss=cross_entropy(logits, labels),
        accuracy=top_k_correct(logits, labels, 1), top5=top_k_correct(logits, labels, 5))
    return sums, jax.nn.softmax(logits)

  def collector(self, *, pictures: bool) -> Collector:
    return Samples(self.class_names) if pictures else Collector()

  def draw(self, directory: pathlib.Path, model: nn.Module, variables: Mapping[str, Any],
           data: Data) -> list[pathlib.Path]:
    """Writes how often the gate of a gated network opens, as JSON and as a plot."""
    if not getattr(model, 'gate', False):
      return []
    heat_map = gate_heat_map.gate_heat_map(
        model.clone(axis_name=None), variables, data.evaluation_batches(), self.transform)
    path = directory / 'gate_heat_map.png'
    gate_heat_map.save_heat_map(heat_map, directory / gate_heat_map.FILE_NAME)
    gate_heat_map.draw(heat_map, path)
    return [path]

  @classmethod
  def predict(cls, opened: Any, files: list[pathlib.Path], *, top: int = 5, batch_size: int = 32,
              named: list[str] | None = None) -> Iterator[RankedClasses]:
    """Yields the `top` most probable classes of each image file.

    Args:
      opened: the trained network: `model`, `variables`, `preprocessing` and `class_names`.
      files: image files of any size, colour mode and EXIF orientation.
      top: how many classes to return, at most the number of classes.
      batch_size: images that are decoded and classified at a time.
      named: those of the files whose damage is an error; None: all.

    Raises:
      UserError: a file that is no image.
    """
    for file, ranked in classify(
        opened, files, top=top, batch_size=batch_size, named=named):
      yield RankedClasses(file, ranked)

  @classmethod
  def exported_function(cls, opened: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns uint8 pixels -> class probabilities; the batch size stays free."""
    function = probabilities_function(opened.model, opened.preprocessing)
    (batch,) = export.symbolic_shape('n')
    images = jax.ShapeDtypeStruct((batch, *opened.preprocessing.shape, 3), 'uint8')
    return lambda x: function(opened.variables, x), (images,)
