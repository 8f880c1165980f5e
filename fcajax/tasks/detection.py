"""Object detection and instance segmentation: the losses of two stages, judged by COCO's AP."""
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from fcajax.errors import UserError, did_you_mean
from fcajax.inference.detect import detections_function
from fcajax.models.detection.rules import resolve_rules
from fcajax.models.detection.targets import Truth
from fcajax.models.detection.two_stage import LOSSES, TwoStageDetector, frozen_pattern
from fcajax.preprocessing.keep_aspect import KeepAspect
from fcajax.preprocessing.padding import clear_padding, positions_per_pixel
from fcajax.tasks import metrics, network
from fcajax.tasks.base import LOSS, Batch, Collector, Data, Metric, Task
from fcajax.tasks.detected_objects import DetectedObjects, detect_files
from fcajax.tasks.detection_results import Detections
from fcajax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class DetectionOptions:
  """The keys of `config.detection`."""

  # Adds 'box_AP/NAME' (and 'mask_AP/NAME') of every class to the metrics.
  per_class: bool = False
  # Detections with a lower score are left out of predictions.png.
  picture_score: float = 0.5

  def __post_init__(self):
    if not 0 <= self.picture_score <= 1:
      raise UserError(f'detection.picture_score={self.picture_score} must lie in 0 to 1')

  @classmethod
  def from_config(cls, config: Mapping[str, Any] | Any) -> 'DetectionOptions':
    """Reads `config.detection`; missing keys take their default.

    Raises:
      UserError: an unknown key, with near matches, or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    for name in config:
      if name not in known:
        raise UserError(f'unknown key detection.{name}: {did_you_mean(name, known)}')
    return cls(**dict(config))


class Detection(Task):
  """Finds boxes, classes and (for a network with a mask head) masks of the objects of an image.

  Batches hold what `input_pipeline.augment.boxes.DetectionTransform` writes, and 'index'. The
  network is called with images, their sizes and, in training, a `Truth`; then it returns its losses
  by name, else padded detections. The data set offers `data.data_set`, a `DetectionData`.
  """

  name = 'detection'
  best = Metric('box_AP', 'box AP', '.3f', title='COCO AP of boxes')
  train_metrics = (LOSS, *(Metric(name, higher_is_better=False, format='.3f') for name in LOSSES))
  eval_metrics = (best, Metric('box_AP50', 'AP50', '.3f'), Metric('mask_AP', 'mask AP', '.3f'),
                  Metric('mask_AP50', 'AP50', '.3f'))
  curves = (LOSS, best, Metric('mask_AP', 'mask AP', '.3f', title='COCO AP of masks'))
  rng_streams = ('dropout', 'gate', 'sampler')
  # What is sampled in an image depends on the image alone, not on the device that it comes to.
  shared_rng_streams = ('sampler',)
  predict_options = ('min_score', 'batch_size', 'named', 'out')

  def __init__(self, config: ConfigDict, data: Data):
    super().__init__(config, data)
    self.options = DetectionOptions.from_config(config.get('detection', {}))
    self.data_set = data.data_set
    self.paste = resolve_rules(config.model.get('rules') or 'mmdet').paste
    self.resize = KeepAspect.from_settings(self.data_set.settings)
    if self.data_set.settings.masks == 'none':
      self.curves = self.curves[:2]

  @classmethod
  def check_config(cls, config: ConfigDict) -> None:
    super().check_config(config)
    DetectionOptions.from_config(config.get('detection', {}))
    wants = bool(config.model.get('masks') or config.model.name.startswith('mask_'))
    if wants and config.data.get('masks') == 'none':
      raise UserError(f"{config.model.name} trains on masks, which config.data.masks='none' leaves "
                      "out; set config.data.masks='box', or config.model.name=faster_rcnn_fpn")

  def model_arguments(self) -> dict[str, Any]:
    arguments = super().model_arguments()
    if self.preprocessing.representation == 'dct':
      arguments['pixels_per_cell'] = 8 // self.resize.enlarge
    return arguments

  def adapt_model(self, model: nn.Module, config: ConfigDict, norm_axis: str | None) -> nn.Module:
    model = super().adapt_model(model, config, norm_axis)
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
      return model
    # Only batch norm of the whole batch may know the devices.
    axis = norm_axis if getattr(model, 'norm', 'sync') == 'sync' else None
    return model.clone(backbone=network.adapt_model(backbone, config, axis, {}))

  def freeze(self, config: ConfigDict, model: nn.Module) -> str:
    """Returns `config.freeze` with what the detector itself does not train."""
    own = frozen_pattern(model) if isinstance(model, TwoStageDetector) else ''
    return '|'.join(filter(None, (config.freeze, own)))

  def metadata(self, config: ConfigDict, model: nn.Module | None) -> dict[str, Any]:
    return {**super().metadata(config, model), 'resize': self.resize.to_dict(),
            'category_ids': list(map(int, self.data_set.category_ids))}

  def sample_batch(self) -> Batch:
    return {**super().sample_batch(), 'image_size': jax.ShapeDtypeStruct((1, 2), 'int32')}

  def prepare(self, key: jax.Array | None, batch: Batch, train: bool) -> Batch:
    """Normalises the images and clears their padding, which is the mean colour then."""
    batch = super().prepare(key, batch, train)
    image = clear_padding(batch['image'], batch['image_size'], positions_per_pixel(
        self.preprocessing.representation, self.resize.enlarge))
    return {**batch, 'image': image}

  def arguments(self, batch: Batch, train: bool) -> tuple[Any, ...]:
    if not train:
      return batch['image'], batch['image_size']
    masks, regions = None, None
    if 'masks' in batch:
      masks, regions = batch['masks'] / jnp.float32(255), batch['boxes']
    elif 'bitmaps' in batch:
      masks = jnp.unpackbits(batch['bitmaps'], axis=-1)
    truth = Truth(batch['boxes'], batch['labels'], batch['valid'], batch['crowd'], masks, regions,
                  batch['index'])
    return batch['image'], batch['image_size'], truth

  def loss(self, outputs: Mapping[str, Float[Array, '']], batch: Batch
           ) -> tuple[dict[str, Float[Array, '']], dict[str, Any]]:
    """Returns the losses of the network, which divides them by what it sampled itself."""
    del batch
    return dict(outputs), {}

  def evaluate(self, outputs: Mapping[str, Array], batch: Batch
               ) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns the mean number of detections of an image; rows are the detections."""
    found = outputs['valid'].sum(axis=1)
    return metrics.averages(batch['mask'], detections=found), dict(outputs)

  def collector(self, *, pictures: bool) -> Collector:
    del pictures
    return Detections(
        self.data_set, self.class_names, paste=self.paste, per_class=self.options.per_class,
        picture_score=self.options.picture_score)

  @classmethod
  def predict(cls, opened: Any, files: list[pathlib.Path], *, min_score: float = 0.5,
              batch_size: int = 4, named: list[str] | None = None) -> Iterator[DetectedObjects]:
    """Yields the objects of each image file.

    Args:
      opened: a trained network: `model`, `variables`, `preprocessing`, `class_names`, `metadata`.
      files: image files of any size, colour mode and EXIF orientation.
      min_score: objects with a lower score are left out.
      batch_size: images that are decoded and searched at a time.
      named: those of the files whose damage is an error; None: all.

    Raises:
      UserError: a file that is no image.
    """
    yield from detect_files(opened, files, min_score=min_score, batch_size=batch_size, named=named)

  @classmethod
  def exported_function(cls, opened: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns the detector of one image of the widest size; see `detections_function`."""
    run = detections_function(opened)
    shape = opened.preprocessing.shape
    inputs = (jax.ShapeDtypeStruct((1, *shape, 3), 'uint8'), jax.ShapeDtypeStruct((1, 2), 'int32'))
    return lambda *images: run(opened.variables, *images), inputs
