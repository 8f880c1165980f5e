"""A person's crop on the host: box to affine map, random scale, rotation and flip, one warp."""
import dataclasses

import numpy as np

from fcajax.errors import UserError
from fcajax.preprocessing import person_crop
from fcajax.typing import Float, Num, Shaped


@dataclasses.dataclass(frozen=True)
class JointAugmentation:
  """Random changes of a person's crop in training; the defaults are the published ones.

  Attributes:
    scale: standard deviation of the crop's size, N(1, scale), cut at one standard deviation.
    rotation: standard deviation of the angle in degrees, N(0, rotation), cut at two standard
      deviations.
    rotation_probability: share of the crops that are rotated.
    flip: share of the crops that are mirrored, left and right joints exchanged.
  """
  scale: float = 0.3
  rotation: float = 40.0
  rotation_probability: float = 0.6
  flip: float = 0.5

  def __post_init__(self):
    if not 0 <= self.scale < 1:
      raise UserError(f'data.scale={self.scale} must lie in 0 to 1 (1 excluded)')
    if not 0 <= self.rotation <= 180:
      raise UserError(f'data.rotation={self.rotation} must lie in 0 to 180 degrees')
    for name in ('rotation_probability', 'flip'):
      if not 0 <= getattr(self, name) <= 1:
        raise UserError(f'data.{name}={getattr(self, name)} must lie in 0 to 1')


@dataclasses.dataclass(frozen=True)
class Draw:
  """One crop's random numbers: a factor on its size, degrees, and whether it is mirrored."""
  factor: float = 1.0
  rotation: float = 0.0
  mirror: bool = False


def draw(generator: np.random.Generator, augmentation: JointAugmentation) -> Draw:
  """Draws the changes of one training example."""
  normal, uniform = generator.standard_normal(2), generator.random(2)
  rotated = uniform[0] < augmentation.rotation_probability
  return Draw(
      1 + augmentation.scale * float(np.clip(normal[0], -1, 1)),
      augmentation.rotation * float(np.clip(normal[1], -2, 2)) if rotated else 0.0,
      bool(uniform[1] < augmentation.flip))


def crop_matrix(
    centre: Num[np.ndarray, '2'], width: float, image_width: int, shape: tuple[int, int],
    change: Draw,
) -> Float[np.ndarray, '2 3']:
  """Returns the affine map from the image to its changed crop.

  A mirrored crop is that of the mirrored image, x -> image_width - 1 - x, about the mirrored
  centre; mirror and crop are one map, so that the image is resampled once.
  """
  if change.mirror:
    centre = np.array([image_width - 1 - centre[0], centre[1]])
  matrix = person_crop.crop_matrix(centre, width * change.factor, change.rotation, shape)
  if change.mirror:
    matrix[:, 2] += matrix[:, 0] * (image_width - 1)
    matrix[:, 0] *= -1
  return matrix


def crop_joints(
    keypoints: Num[np.ndarray, 'k 3'], matrix: Float[np.ndarray, '2 3'], mirror: bool,
    permutation: Shaped[np.ndarray, ' k'],
) -> tuple[Float[np.ndarray, 'k 2'], Float[np.ndarray, ' k']]:
  """Maps joints to the crop.

  Args:
    keypoints: x, y in the image and visibility; above 0 is labelled.
    matrix: of `crop_matrix`.
    mirror: exchanges left and right.
    permutation: the joint that each joint becomes in a mirror.

  Returns:
    (x, y) float32 in the crop, (0, 0) where not labelled, and 1 where labelled, else 0.
  """
  if mirror:
    keypoints = keypoints[permutation]
  seen = keypoints[:, 2] > 0
  points = person_crop.transform_points(matrix, keypoints[:, :2].astype(np.float64))
  return np.where(seen[:, None], points, 0).astype(np.float32), seen.astype(np.float32)
