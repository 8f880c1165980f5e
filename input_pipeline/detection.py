"""Object detection's half of the pipeline: images with boxes and masks as batches."""
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fcajax.errors import UserError
from fcajax.input_pipeline.augment.boxes import DetectionTransform, decode_stored
from fcajax.input_pipeline.augment.masks import bitmap
from fcajax.input_pipeline.detection_settings import DetectionSettings
from fcajax.input_pipeline.normalization import make_preprocessing
from fcajax.input_pipeline.sources.annotations import DetectionSource, ImageRecord
from fcajax.input_pipeline.sources.base import Batch, DataSet
from fcajax.input_pipeline.sources.coco import open_coco
from fcajax.input_pipeline.sources.voc import open_voc
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.host_formats import HostFormat
from fcajax.preprocessing.run_lengths import coco_masks
from fcajax.preprocessing.spec import Preprocessing


class DetectionExamples:
  """`Examples` of images with boxes, grouped by the shape that they are padded to.

  An example is what `DetectionTransform` writes, and 'index', int32: of the image in the source.

  Args:
    source: of the images.
    transform: of an image and its objects.
  """

  def __init__(self, source: DetectionSource, transform: DetectionTransform):
    self._source, self._transform = source, transform
    self.groups = np.array([transform.bucket(tuple(size)) for size in source.sizes.tolist()])

  def __len__(self) -> int:
    return len(self._source)

  def name(self, index: int) -> str:
    return self._source.name(index)

  def spec(self, group: int) -> Batch:
    return {**self._transform.spec(group), 'index': jax.ShapeDtypeStruct((), np.int32)}

  def original(self, index: int) -> tuple[np.ndarray, ImageRecord, np.ndarray | None]:
    """Returns (RGB pixels, record, outlines as bitmaps) of an image as stored, for pictures.

    The bitmaps, uint8 `[n, height, width]`, are None if an object has no outline.
    """
    data, record = self._source.read(index)
    pixels, _ = decode_stored(data, record.size, record.size)
    if any(outline is None for outline in record.outlines):
      return pixels, record, None
    masks = [bitmap(outline, record.size, record.size) for outline in record.outlines]
    return pixels, record, np.array(masks, bool).reshape(-1, *record.size)

  def load(self, index: int, out: Batch, generator: np.random.Generator | None) -> None:
    data, record = self._source.read(index)
    self._transform(data, record, int(self.groups[index]), out, generator)
    out['index'][...] = index


@dataclasses.dataclass(frozen=True)
class DetectionData(DataSet):
  """A data set of images with boxes.

  Attributes:
    settings: of sizes and masks.
    image_ids: of the evaluation images, by the 'index' of their examples.
    category_ids: of each label in the annotations that evaluation compares with; -1 for none.
    ground_truth: returns these annotations in COCO's format.
  """
  settings: DetectionSettings = dataclasses.field(default_factory=DetectionSettings)
  image_ids: Sequence[Any] = ()
  category_ids: Sequence[int] = ()
  ground_truth: Callable[[], dict] = dict


def load_data_set(settings: DetectionSettings, seed: int) -> DetectionData:
  """Opens the annotations that the settings name, as a detector reads them.

  Args:
    settings: of `config.data`.
    seed: of the images that are held out, where the data has no evaluation split.
  Raises:
    UserError: nothing there, or not what is expected; the message names it.
  """
  preprocessing = make_preprocessing(settings)
  if settings.masks != 'none':
    coco_masks()  # before any work
  train, evaluation, note = _OPENERS[settings.source](settings, seed)
  train = train.for_training(masks=settings.masks != 'none', min_side=settings.min_side,
                             max_boxes=settings.max_boxes)
  if settings.masks != 'none' and not evaluation.has_outlines:
    note = '\n'.join(filter(None, [note, 'the evaluation images have no outlines, so masks cannot '
                                         'be judged']))
  notes = [f'training: {line}' for line in train.notes]
  notes += [f'evaluation: {line}' for line in evaluation.notes if line not in train.notes]
  chosen = functools.partial(_host_format, settings, preprocessing)
  return DetectionData(
      train=DetectionExamples(train, DetectionTransform(settings, train=True, host_format=chosen)),
      evaluation=DetectionExamples(
          evaluation, DetectionTransform(settings, train=False, host_format=chosen)),
      class_names=train.class_names, preprocessing=preprocessing,
      note='\n'.join(filter(None, [note, *notes])), settings=settings,
      image_ids=evaluation.image_ids, category_ids=evaluation.category_ids,
      ground_truth=evaluation.ground_truth)


load_data_set.Settings = DetectionSettings


def _host_format(settings: DetectionSettings, preprocessing: Preprocessing,
                 shape: tuple[int, int]) -> HostFormat:
  return host_formats.choose(settings, dataclasses.replace(preprocessing, image_size=shape))


def _open_coco(settings: DetectionSettings, seed: int) -> tuple:
  root = pathlib.Path(settings.root).expanduser()
  if not settings.train_annotations or not (settings.root or settings.train_images):
    raise UserError('data.source="coco" needs a JSON file and a folder of images: give '
                    '--config.data.train_annotations=FILE --config.data.train_images=DIR, or a '
                    '--config.data.root that both are relative to')

  def split(annotations, images, names):
    return open_coco(root / annotations, root / images, class_names=names,
                     max_missing_fraction=settings.max_corrupt_fraction)

  train = split(settings.train_annotations, settings.train_images, None)
  if not settings.eval_annotations:
    return _hold_out(train, settings, seed)
  images = settings.eval_images or settings.train_images
  return train, split(settings.eval_annotations, images, train.class_names), ''


def _open_voc(settings: DetectionSettings, seed: int) -> tuple:
  if not settings.root:
    raise UserError('data.source="voc" needs --config.data.root=DIR, a folder with Annotations and '
                    'JPEGImages')
  allowed = settings.max_corrupt_fraction
  train = open_voc(settings.root, settings.train_split, max_missing_fraction=allowed)
  if not settings.eval_split:
    return _hold_out(train, settings, seed)
  evaluation = open_voc(settings.root, settings.eval_split, class_names=train.class_names,
                        max_missing_fraction=allowed)
  return train, evaluation, ''


_OPENERS = {'coco': _open_coco, 'voc': _open_voc}


def _hold_out(source: DetectionSource, settings: DetectionSettings, seed: int) -> tuple:
  """Returns (training images, the others, a note)."""
  if len(source) < 2:
    raise UserError('there is a single image, so none can be held out; add images or give '
                    'annotations for evaluation')
  order = np.random.default_rng([int(seed), 0xB0CE5]).permutation(len(source))
  count = min(len(source) - 1, max(1, round(settings.validation_fraction * len(source))))
  note = (f'{count} of {len(source)} images are held out for evaluation '
          f'(data.validation_fraction={settings.validation_fraction}, seed {seed})')
  return source.select(np.sort(order[count:])), source.select(np.sort(order[:count])), note
