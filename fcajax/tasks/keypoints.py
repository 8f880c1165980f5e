"""Keypoints of persons: heat maps, judged by OKS AP and PCK."""
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export
from ml_collections import ConfigDict

from fcajax import distributed
from fcajax.analysis import draw_keypoints
from fcajax.errors import UserError, did_you_mean
from fcajax.inference.read_images import decode_files
from fcajax.ops import heatmaps
from fcajax.preprocessing import person_crop
from fcajax.preprocessing.decode import decode_image
from fcajax.preprocessing.skeleton import Skeleton
from fcajax.preprocessing.spec import device_transform
from fcajax.tasks import keypoint_evaluation as evaluation
from fcajax.tasks import metrics, network
from fcajax.tasks.base import LOSS, Batch, Collector, Data, Metric, Prediction, Task
from fcajax.typing import Array, Float, UInt8

RESULTS = 'keypoints.json'
PICTURE = 'predictions.png'
_PICTURES = 12


@dataclasses.dataclass(frozen=True)
class KeypointOptions:
  """The keys of `config.keypoints`."""

  # Standard deviation of the targets in pixels of the heat maps: 2 for 256 x 192, 3 for 384 x 288.
  sigma: float = 2.0
  # Average with the maps of the mirrored image in evaluation, moved by a pixel.
  flip_test: bool = True
  # A person whose OKS with a better one is larger is left out.
  nms_threshold: float = 0.9
  # Joints with a larger maximum count for the person's score.
  min_joint_score: float = 0.2

  def __post_init__(self):
    if not self.sigma > 0:
      raise UserError(f'keypoints.sigma={self.sigma} must be above 0')
    if not 0 <= self.nms_threshold <= 1:
      raise UserError(f'keypoints.nms_threshold={self.nms_threshold} must lie in 0 to 1')

  @classmethod
  def from_config(cls, config: Mapping[str, Any] | Any) -> 'KeypointOptions':
    """Reads `config.keypoints`; missing keys take their default.

    Raises:
      UserError: an unknown key, with near matches, or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    for name in config:
      if name not in known:
        raise UserError(f'unknown key keypoints.{name}: {did_you_mean(name, known)}')
    return cls(**dict(config))


@dataclasses.dataclass(frozen=True)
class FoundSkeletons(Prediction):
  """The persons of one image.

  Attributes:
    names: of the joints.
    boxes: x, y, width, height of the persons.
    keypoints: of each person: x, y in pixels of the image, and the score of each joint.
    scores: of the persons.
    skeleton: to draw them.
  """

  names: tuple[str, ...]
  boxes: np.ndarray
  keypoints: np.ndarray
  scores: np.ndarray
  skeleton: Skeleton

  def to_dict(self) -> dict[str, Any]:
    persons = [{'box': np.round(box, 2).tolist(), 'score': round(float(score), 6),
                'keypoints': np.round(joints, 3).ravel().tolist()}
               for box, joints, score in zip(self.boxes, self.keypoints, self.scores)]
    return {'image': str(self.file), 'persons': persons}

  def text(self) -> str:
    lines = []
    for joints, score in zip(self.keypoints, self.scores):
      shown = ', '.join(f'{name} {x:.0f} {y:.0f}' for name, (x, y, s) in zip(self.names, joints)
                        if s > 0.2)
      lines.append(f'{score:.2f}: {shown or "no joint"}')
    return '; '.join(lines) or 'no person'

  def results(self, image_id: int) -> list[dict[str, Any]]:
    return [{'image_id': image_id, 'category_id': 1, 'score': float(score),
             'keypoints': np.round(joints, 3).ravel().tolist()}
            for joints, score in zip(self.keypoints, self.scores)]

  def draw(self) -> np.ndarray:
    """Returns the image, uint8 RGB, with the skeletons on it."""
    return draw_keypoints.draw_skeletons(decode_image(self.file), self.keypoints, self.skeleton)


class Keypoints(Task):
  """Finds the joints of one person in a crop.

  Batches hold 'image' uint8 `[N, h, w, 3]`, 'joints' float32 `[N, K, 2]` (x, y in the crop),
  'visible' float32 `[N, K]` and 'person' int32 `[N]`, the row of the data set. The network returns
  heat maps `[N, H, W, K]`; targets are drawn on the device. The data set offers
  `data.data_set.persons`, an `EvaluationPersons`.
  """

  name = 'keypoints'
  best = Metric('AP', 'AP', '.3f', title='OKS AP')
  train_metrics = (LOSS, Metric('found', format='.1%'))
  eval_metrics = (LOSS, best, Metric('AP50', format='.3f'), Metric('AR', format='.3f'),
                  Metric('PCK', format='.1%'))
  curves = (LOSS, best)
  examples = 'persons'
  predict_options = ('boxes', 'batch_size', 'named', 'out')
  model_example = {'num_keypoints': 17}

  def __init__(self, config: ConfigDict, data: Data):
    super().__init__(config, data)
    self.options = KeypointOptions.from_config(config.get('keypoints', {}))
    self.persons = data.data_set.persons
    self.skeleton = self.persons.skeleton
    if not self.skeleton.sigmas:
      self.best = Metric('PCK', format='.1%', title='PCK at 0.2')
      self.curves = (LOSS, self.best)

  @classmethod
  def check_config(cls, config: ConfigDict) -> None:
    super().check_config(config)
    KeypointOptions.from_config(config.get('keypoints', {}))

  def model_arguments(self) -> dict[str, Any]:
    return {'num_keypoints': len(self.skeleton.names)}

  def adapt_model(self, model: nn.Module, config: ConfigDict, norm_axis: str | None) -> nn.Module:
    model = super().adapt_model(model, config, norm_axis)
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
      return model
    return model.clone(backbone=network.adapt_model(model.backbone, config, norm_axis, {}))

  def metadata(self, config: ConfigDict, model: nn.Module | None) -> dict[str, Any]:
    metadata, count = super().metadata(config, model), len(self.skeleton.names)
    # The joints stand for the classes where a trained network is opened.
    description = {**metadata['model'], 'num_classes': count}
    if model is None:
      description['overrides'] = {**description['overrides'], 'num_keypoints': count}
    return {**metadata, 'model': description, 'skeleton': self.skeleton.to_dict(),
            'padding': float(config.data.get('padding', person_crop.PADDING))}

  def describe_data(self) -> str:
    return f'with {len(self.skeleton.names)} joints each'

  def prepare(self, key: jax.Array | None, batch: Batch, train: bool) -> Batch:
    """Normalises the crops; in evaluation the mirrored crops follow behind them."""
    if not train and self.options.flip_test:
      image = batch['image']
      batch = {**batch, 'image': jnp.concatenate([image, image[:, :, ::-1]])}
    return super().prepare(key, batch, train)

  def loss(self, outputs: Float[Array, 'n h w k'], batch: Batch
           ) -> tuple[Float[Array, ' n'], dict[str, Any]]:
    """Returns half the mean squared error, and the share of joints found.

    A joint is found if the maximum lies within 5% of the maps' size of the target's.
    """
    target, weight = self._targets(outputs, batch)
    size = np.array([outputs.shape[2], outputs.shape[1]], np.float32)
    found, _ = heatmaps.decode_heatmaps(outputs, quarter_pixel=False)
    wanted, _ = heatmaps.decode_heatmaps(target, quarter_pixel=False)
    distance = jnp.linalg.norm((found - wanted) / size, axis=-1)
    right = metrics.Mean(jnp.sum((distance < 0.05) * weight), jnp.sum(weight))
    return heatmaps.heatmap_loss(outputs, target, weight), {'found': right}

  def _targets(self, outputs, batch):
    return heatmaps.heatmap_targets(
        batch['joints'], batch['visible'], image_size=self.preprocessing.shape,
        heatmap_size=outputs.shape[1:3], sigma=self.options.sigma)

  def evaluate(self, outputs: Float[Array, 'm h w k'], batch: Batch
               ) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns the loss of the crops as they are, and the maxima of their (averaged) maps."""
    maps = outputs
    if self.options.flip_test:
      outputs, mirrored = jnp.split(outputs, 2)
      maps = heatmaps.flip_average(outputs, mirrored, self.skeleton.flip_pairs)
    points, scores = heatmaps.decode_heatmaps(maps)
    # In pixels of the crop, so that rows need not say how large the maps are.
    stride = _stride(maps, self.preprocessing.shape)
    losses = heatmaps.heatmap_loss(outputs, *self._targets(outputs, batch))
    return (metrics.averages(batch['mask'], loss=losses),
            {'points': points * stride, 'scores': scores})

  def collector(self, *, pictures: bool) -> Collector:
    del pictures
    return _Persons(self.persons, self.options, self.preprocessing.shape)

  @classmethod
  def predict(cls, opened: Any, files: list[pathlib.Path], *, boxes: str | None = None,
              batch_size: int = 32, named: list[str] | None = None) -> Iterator[FoundSkeletons]:
    """Yields the persons of each image file.

    Args:
      opened: a trained network: has `model`, `variables`, `preprocessing` and `metadata`.
      files: image files.
      boxes: JSON of person boxes, a list of {'file_name', 'bbox': [x, y, width, height], 'score'};
        None takes each image as one person's box.
      batch_size: persons at a time.
      named: those of the files whose damage is an error; None: all.

    Raises:
      UserError: the boxes are no such list, or a file is no image.
    """
    locator = _Locator(opened, batch_size)
    given = None if boxes is None else _read_boxes(boxes)
    for file, image in decode_files(files, named):
      yield locator(file, image, given)

  @classmethod
  def exported_function(cls, opened: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns crops uint8 `[N, h, w, 3]` -> (points, scores), see `locate_function`."""
    function = locate_function(
        opened.model, opened.preprocessing, Skeleton.from_dict(opened.metadata['skeleton']))
    (batch,) = export.symbolic_shape('n')
    crops = jax.ShapeDtypeStruct((batch, *opened.preprocessing.shape, 3), 'uint8')
    return lambda x: function(opened.variables, x), (crops,)


class _Persons(Collector):
  """Collects the maxima of all heat maps and judges them at the end."""

  def __init__(self, persons: evaluation.EvaluationPersons, options: KeypointOptions,
               shape: tuple[int, int]):
    self._persons, self._options, self._shape = persons, options, shape
    self._rows, self._points, self._scores = [], [], []
    self.found = None

  def keep(self, batch: Batch) -> Any:
    return np.asarray(batch['person']), np.asarray(batch['mask']) > 0

  def add(self, kept: Any, rows: Mapping[str, np.ndarray]) -> None:
    person, mask = kept
    self._rows += person[mask].tolist()
    self._points += rows['points'][mask].tolist()
    self._scores += rows['scores'][mask].tolist()

  def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
    rows, points, scores = (
        np.array(distributed.gather(values), kind) for values, kind in (
            (self._rows, np.int64), (self._points, np.float64), (self._scores, np.float64)))
    count = len(self._persons.skeleton.names)
    # Processes hand in their shares one after the other; metrics must not depend on their number.
    order = np.argsort(rows, kind='stable')
    self.found = evaluation.locate(
        self._persons, rows[order], points.reshape(-1, count, 2)[order],
        scores.reshape(-1, count)[order], self._shape, self._options.min_joint_score)
    return super().metrics(sums) | evaluation.judge(
        self._persons, self.found, self._options.nms_threshold)

  def draw(self, directory: pathlib.Path) -> list[pathlib.Path]:
    """Writes `keypoints.json`, COCO's results, and `predictions.png`."""
    kept = evaluation.suppress(self._persons, self.found, self._options.nms_threshold)
    evaluation.write_results(directory / RESULTS, self._persons, kept)
    pairs = evaluation.best_in_images(self._persons, kept, _PICTURES)
    if not pairs:
      return [directory / RESULTS]
    images = [draw_keypoints.draw_skeletons(decode_image(file), joints, self._persons.skeleton)
              for file, joints in pairs]
    draw_keypoints.draw_grid(
        directory / PICTURE, images, [pathlib.Path(file).name for file, _ in pairs],
        'Joints found in images of the evaluation')
    return [directory / RESULTS, directory / PICTURE]


class _Locator:
  """Finds the joints of persons in image files with a trained network."""

  def __init__(self, opened: Any, batch_size: int):
    self._opened, self._batch_size = opened, batch_size
    self._skeleton = Skeleton.from_dict(opened.metadata['skeleton'])
    self._padding = opened.metadata.get('padding', person_crop.PADDING)
    self._shape = opened.preprocessing.shape
    self._run = jax.jit(locate_function(opened.model, opened.preprocessing, self._skeleton))

  def __call__(self, file: pathlib.Path, image: UInt8[np.ndarray, 'h w 3'],
               given: Mapping[str, list] | None) -> FoundSkeletons:
    whole = [([0, 0, image.shape[1], image.shape[0]], 1.0)]
    rows = whole if given is None else given.get(pathlib.Path(file).name, [])
    boxes = np.array([box for box, _ in rows], np.float64).reshape(-1, 4)
    centres, sizes = person_crop.crop_regions(boxes, self._shape, self._padding)
    crops = np.zeros((len(boxes), *self._shape, 3), np.uint8)
    for crop, centre, size in zip(crops, centres, sizes):
      person_crop.warp(
          image, person_crop.crop_matrix(centre, float(size[0]), 0.0, self._shape), crop)
    points, scores = self._maxima(crops)
    joints = person_crop.heatmap_to_image(points, centres, sizes[:, 0], self._shape)
    keypoints = np.concatenate([joints, scores[..., None]], axis=-1)
    box_scores = np.array([score for _, score in rows], np.float64)
    total = evaluation.person_scores(box_scores, scores)
    return FoundSkeletons(
        file, self._skeleton.names, boxes, keypoints, total, self._skeleton)

  def _maxima(self, crops):
    """Runs the network on groups of one size, so that it is compiled once."""
    count = len(self._skeleton.names)
    points, scores = [np.zeros((0, count, 2))], [np.zeros((0, count))]
    for start in range(0, len(crops), self._batch_size):
      group = crops[start:start + self._batch_size]
      padded = np.pad(group, ((0, self._batch_size - len(group)), (0, 0), (0, 0), (0, 0)))
      found = self._run(self._opened.variables, padded)
      points.append(np.asarray(found[0], np.float64)[:len(group)])
      scores.append(np.asarray(found[1], np.float64)[:len(group)])
    return np.concatenate(points), np.concatenate(scores)


def locate_function(model: nn.Module, preprocessing: Any, skeleton: Skeleton) -> Any:
  """Returns a pure function (variables, crops uint8 `[N, h, w, 3]`) -> (points, scores).

  Points are x, y in pixels of the crop `[N, K, 2]`, scores `[N, K]` the maxima, both of the maps
  averaged with those of the mirrored crops. This is also what is exported.
  """
  transform = device_transform(preprocessing)

  def locate(variables, crops):
    both = jnp.concatenate([crops, crops[:, :, ::-1]])
    maps, mirrored = jnp.split(model.apply(variables, transform(both), train=False), 2)
    average = heatmaps.flip_average(maps, mirrored, skeleton.flip_pairs)
    points, scores = heatmaps.decode_heatmaps(average)
    return points * _stride(maps, preprocessing.shape), scores

  return locate


def _stride(maps: Float[Array, 'n h w k'], shape: tuple[int, int]) -> np.ndarray:
  """Returns the pixels of the crop to a pixel of the maps, along x and y."""
  return np.array([shape[1] / maps.shape[2], shape[0] / maps.shape[1]], np.float32)


def _read_boxes(path: str) -> dict[str, list]:
  """Returns (box, score) by the name of the image file."""
  try:
    rows = json.loads(pathlib.Path(path).expanduser().read_text())
    boxes: dict[str, list] = {}
    for row in rows:
      box = np.asarray(row['bbox'], np.float64)
      if box.shape != (4,) or not np.isfinite(box).all() or min(box[2:]) <= 0:
        raise UserError(f"'{path}' has the box {row['bbox']}; it must be x, y, width and height "
                        'in pixels, the last two above 0')
      name = pathlib.Path(row['file_name']).name
      boxes.setdefault(name, []).append((box.tolist(), float(row.get('score', 1.0))))
  except OSError as error:
    raise UserError(f"the file of boxes '{path}' cannot be read: {error.strerror}") from error
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise UserError(f"'{path}' is not a list of objects with 'file_name' and 'bbox'") from error
  return boxes
