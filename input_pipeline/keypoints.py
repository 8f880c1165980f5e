"""Keypoints' half of the pipeline: the crop of one person and its joints."""
import dataclasses
import os
import pathlib
import threading
from typing import Any

import jax
import numpy as np

from fcajax.errors import UserError
from fcajax.input_pipeline.augment import joints
from fcajax.input_pipeline.settings import LoaderSettings
from fcajax.input_pipeline.sources.base import Batch, DataSet, ExampleError
from fcajax.input_pipeline.sources.keypoints import AnnotatedPersons, Persons
from fcajax.ops.heatmaps import flip_permutation
from fcajax.preprocessing import person_crop
from fcajax.preprocessing.constants import IMAGENET_MEAN, IMAGENET_STD
from fcajax.preprocessing.decode import decode_image, decode_region
from fcajax.preprocessing.spec import Preprocessing
from fcajax.tasks.keypoint_evaluation import EvaluationPersons
from fcajax.typing import Float, UInt8


@dataclasses.dataclass(frozen=True)
class KeypointSettings(LoaderSettings):
  """The keys of `config.data` for keypoints."""

  source: str = 'keypoints'
  # The folder that the paths below are relative to.
  root: str = ''
  # JSON in COCO's keypoint format, and the folder of its images.
  train_annotations: str = 'annotations/person_keypoints_train2017.json'
  train_images: str = 'train2017'
  eval_annotations: str = 'annotations/person_keypoints_val2017.json'
  eval_images: str = 'val2017'
  # JSON of a detector's boxes to evaluate on, [{image_id, category_id, bbox, score}]; '' takes the
  # annotated boxes.
  eval_boxes: str = ''
  # The category whose keypoints are read; '' takes the only one that has some.
  category: str = ''
  # Pairs of joints (names or indices) that a mirror exchanges; None takes the file's, or joints
  # whose names differ in left and right alone.
  flip_pairs: Any = None
  # OKS constant of each joint; None takes the file's, or COCO's for COCO's joints. Without any, PCK
  # judges.
  sigmas: Any = None
  # (height, width) of the crop in pixels: multiples of the network's stride.
  image_size: Any = (256, 192)
  # The crop is this many times the person's box.
  padding: float = person_crop.PADDING
  # False crops training images as evaluation does.
  augment: bool = True
  # Standard deviation of the crop's size, N(1, scale), cut at one of them.
  scale: float = 0.3
  # Standard deviation of the angle in degrees, cut at two, and the share of crops that are rotated.
  rotation: float = 40.0
  rotation_probability: float = 0.6
  # Mirror crops with probability 1/2, left and right joints exchanged.
  flip: bool = True
  # Of RGB in 0..1.
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD

  def __post_init__(self):
    super().__post_init__()
    for name in ('root', 'train_annotations', 'train_images', 'eval_annotations', 'eval_images'):
      if not isinstance(getattr(self, name), str):
        raise UserError(f'data.{name}={getattr(self, name)!r} must be a path')
    if not self.padding > 0:
      raise UserError(f'data.padding={self.padding} must be above 0')
    self.augmentation()

  def augmentation(self) -> joints.JointAugmentation | None:
    """Returns the random changes in training, or None."""
    changes = joints.JointAugmentation(
        self.scale, self.rotation, self.rotation_probability, 0.5 if self.flip else 0.0)
    return changes if self.augment else None

  def path(self, name: str) -> pathlib.Path:
    """Returns the path in the field `name`, below `root`."""
    return pathlib.Path(self.root).expanduser() / getattr(self, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeypointDataSet(DataSet):
  """Persons to train on and to evaluate.

  Attributes:
    persons: of the evaluation, and what their results are judged by.
  """
  persons: EvaluationPersons


# The decoded image of each thread: persons of an image follow one another in evaluation.
_decoded = threading.local()


class PersonExamples:
  """`Examples` {'image', 'joints', 'visible', 'person'} of persons.

  Args:
    persons: to cut out.
    shape: (height, width) of the crop.
    padding: the crop is this many times the person's box.
    flip_pairs: joints that a mirror exchanges.
    augmentation: random changes where a generator is given; None changes nothing.
  """

  def __init__(self, persons: Persons, shape: tuple[int, int], padding: float,
               flip_pairs: tuple, augmentation: joints.JointAugmentation | None):
    self._persons, self._shape, self._augmentation = persons, tuple(shape), augmentation
    self.centres, self.sizes = person_crop.crop_regions(persons.boxes, shape, padding)
    self._permutation = np.array(flip_permutation(persons.keypoints.shape[1], flip_pairs))

  def __len__(self) -> int:
    return len(self._persons)

  def name(self, index: int) -> str:
    return self._persons.name(index)

  def spec(self, group: int) -> Batch:
    del group
    count = self._persons.keypoints.shape[1]
    return {'image': jax.ShapeDtypeStruct((*self._shape, 3), np.uint8),
            'joints': jax.ShapeDtypeStruct((count, 2), np.float32),
            'visible': jax.ShapeDtypeStruct((count,), np.float32),
            'person': jax.ShapeDtypeStruct((), np.int32)}

  def load(self, index: int, out: Batch, generator: np.random.Generator | None) -> None:
    image = int(self._persons.image[index])
    change = joints.Draw()
    if generator is not None and self._augmentation is not None:
      change = joints.draw(generator, self._augmentation)
    matrix = joints.crop_matrix(
        self.centres[index], float(self.sizes[index, 0]),
        int(self._persons.images.sizes[image][1]), self._shape, change)
    pixels = self._rows(image, matrix) if generator is not None else self._whole(image)
    person_crop.warp(pixels, matrix, out['image'])
    out['joints'][...], out['visible'][...] = joints.crop_joints(
        self._persons.keypoints[index], matrix, change.mirror, self._permutation)
    out['person'][...] = index

  def _rows(self, image: int, matrix: Float[np.ndarray, '2 3']) -> UInt8[np.ndarray, 'h w 3']:
    """Returns the image without rows below the crop, which need not be decoded."""
    with open(self._persons.images.path(image), 'rb') as file:
      data = file.read()

    def choose(size):
      self._check_size(image, size)
      shape = person_crop.covered_rows(matrix, self._shape, size[0]), size[1]
      # An output of the same size keeps the decoder from shrinking the image.
      return (0, 0, *shape), shape

    return decode_region(data, choose)[0]

  def _whole(self, image: int) -> UInt8[np.ndarray, 'h w 3']:
    """Returns the image; the last one of this thread is kept."""
    path = self._persons.images.path(image)
    if getattr(_decoded, 'path', None) != path:
      pixels = decode_image(path)
      self._check_size(image, pixels.shape[:2])
      _decoded.path, _decoded.pixels = path, pixels
    return _decoded.pixels

  def _check_size(self, image: int, size: tuple[int, int]) -> None:
    expected = tuple(int(side) for side in self._persons.images.sizes[image])
    if tuple(size) != expected:
      raise ExampleError(
          f"'{self._persons.images.names[image]}' is {size[0]} x {size[1]} pixels, its annotation "
          f'says {expected[0]} x {expected[1]}')


def load_data_set(settings: KeypointSettings, seed: int) -> KeypointDataSet:
  """Opens the annotated persons that the settings name.

  Raises:
    UserError: a file is missing or is not what is expected; no person can be used; the two splits
      have other joints.
  """
  del seed
  preprocessing = Preprocessing(
      image_size=tuple(settings.image_size), mean=settings.mean, std=settings.std)
  shape = preprocessing.shape
  train, evaluation = (_open(settings, split) for split in ('train', 'eval'))
  if train.skeleton.names != evaluation.skeleton.names:
    raise UserError(f"the joints of '{settings.path('train_annotations')}' "
                    f"({', '.join(train.skeleton.names)}) are not those of "
                    f"'{settings.path('eval_annotations')}' "
                    f"({', '.join(evaluation.skeleton.names)})")
  skeleton = train.skeleton
  if settings.eval_boxes:
    persons = evaluation.detected(settings.path('eval_boxes'))
  else:
    persons = evaluation.persons(training=False)
  splits = [PersonExamples(rows, shape, settings.padding, skeleton.flip_pairs, change)
            for rows, change in ((train.persons(training=True), settings.augmentation()),
                                 (persons, None))]
  return KeypointDataSet(
      train=splits[0], evaluation=splits[1], class_names=list(skeleton.names),
      preprocessing=preprocessing, note=_note(settings, train, evaluation), unit='person',
      train_folder=os.fspath(settings.path('train_images')),
      persons=_evaluation_persons(persons, evaluation, splits[1]))


def _evaluation_persons(
    persons: Persons, opened: AnnotatedPersons, examples: PersonExamples) -> EvaluationPersons:
  images = persons.images
  return EvaluationPersons(
      skeleton=opened.skeleton, image=persons.image, image_ids=images.ids,
      files=tuple(map(images.path, range(len(images.names)))), ranks=opened.ranks,
      boxes=persons.boxes, box_scores=persons.scores, centres=examples.centres,
      sizes=examples.sizes, keypoints=persons.keypoints, truth=opened.truth(),
      category_id=opened.category_id)


def _open(settings: KeypointSettings, split: str) -> AnnotatedPersons:
  return AnnotatedPersons(
      settings.path(f'{split}_annotations'), settings.path(f'{split}_images'),
      category=settings.category, flip_pairs=settings.flip_pairs, sigmas=settings.sigmas,
      max_missing_fraction=settings.max_corrupt_fraction)


def _note(settings, train, evaluation):
  lines = [f"'{settings.path(f'{split}_annotations')}': {line}"
           for split, opened in (('train', train), ('eval', evaluation))
           for line in opened.notes.lines()]
  return '\n'.join(lines)
