"""What two-stage detectors are trained on: the ground truth, samples, and the five losses."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fcajax.models.detection.rules import Rules
from fcajax.models.detection.stages import BOX_STDS
from fcajax.ops.box_masks import box_mask_targets
from fcajax.ops.boxes import encode_boxes
from fcajax.ops.detection_losses import binary_cross_entropy, cross_entropy, smooth_l1
from fcajax.ops.masks import mask_targets
from fcajax.ops.matching import (
  NEGATIVE,
  UNUSED,
  Assigner,
  Samples,
  assign,
  sample,
  sampled_mask,
)
from fcajax.typing import Array, Bool, Float, Int, Num


class Truth(NamedTuple):
  """The ground truth of a batch, padded to `g` objects an image.

  Attributes:
    boxes: in pixels of the (resized) image.
    labels: classes from 0.
    valid: False for padding.
    crowd: True for regions of crowds, which no box is trained on; None, there are none.
    masks: bitmaps, 0 to 1; None without masks.
    regions: the box that each bitmap is cut to, in pixels; None, bitmaps of the whole (padded)
      image.
    index: of each image in the run's data, so that what is sampled does not depend on how a batch
      is split among devices; None, its index in the batch.
  """
  boxes: Float[Array, 'n g 4']
  labels: Int[Array, 'n g']
  valid: Bool[Array, 'n g']
  crowd: Bool[Array, 'n g'] | None = None
  masks: Num[Array, 'n g h w'] | None = None
  regions: Float[Array, 'n g 4'] | None = None
  index: Int[Array, ' n'] | None = None


class Sampling(NamedTuple):
  """Samples of an image for one loss: their number (None takes all) and share of positive ones."""
  number: int | None
  positive_fraction: float


def rpn_losses(
    logits: Float[Array, ' n'], deltas: Float[Array, 'n 4'], anchors: Float[Array, 'n 4'],
    inside: Bool[Array, ' n'], truth: Truth, priority: Float[Array, ' n'], rules: Rules,
    sampling: Sampling,
) -> tuple[Float[Array, ''], Float[Array, ''], Int[Array, '']]:
  """Computes the sums of the objectness and box losses of one image, and its samples."""
  codes = assign(rules.rpn_assigner, anchors, truth.boxes, truth.valid, inside, truth.crowd)
  chosen = sampled_mask(sample(codes, priority, *sampling), codes.shape[0])
  positive = chosen & (codes >= 0)
  entropy = binary_cross_entropy(logits, positive.astype(jnp.float32))
  wanted = encode_boxes(anchors, truth.boxes[jnp.maximum(codes, 0)])
  difference = jnp.where(positive[:, None], deltas - wanted, 0)
  return (jnp.sum(jnp.where(chosen, entropy, 0)),
          jnp.sum(smooth_l1(difference, rules.rpn_beta)), chosen.sum())


def candidates(
    proposals: Float[Array, 'p 4'], valid: Bool[Array, ' p'], truth: Truth, assigner: Assigner,
) -> tuple[Float[Array, 'c 4'], Int[Array, ' c']]:
  """Joins the ground truth and the proposals of one image: (boxes, codes).

  A ground truth is its own positive example; crowds and padding are unused.
  """
  usable = truth.valid if truth.crowd is None else truth.valid & ~truth.crowd
  own = jnp.where(usable, jnp.arange(usable.shape[0], dtype=jnp.int32), UNUSED)
  codes = assign(assigner, proposals, truth.boxes, truth.valid, valid, truth.crowd)
  return jnp.concatenate([truth.boxes, proposals]), jnp.concatenate([own, codes])


def class_targets(
    codes: Int[Array, ' s'], truth: Truth, classes: int, rules: Rules,
) -> Int[Array, ' s']:
  """Returns the index among the class logits that each sample is trained on."""
  first = rules.background == 'first'
  background = 0 if first else classes
  return jnp.where(codes >= 0, truth.labels[jnp.maximum(codes, 0)] + first, background)


def box_losses(
    logits: Float[Array, 's k'], deltas: Float[Array, 's b 4'], boxes: Float[Array, 's 4'],
    samples: Samples, truth: Truth, classes: int, rules: Rules,
) -> tuple[Float[Array, ''], Float[Array, ''], Int[Array, '']]:
  """Computes the sums of the class and box losses of one image's samples, and their number."""
  labels = class_targets(samples.codes, truth, classes, rules)
  entropy = jnp.where(samples.valid, cross_entropy(logits, labels), 0)
  own = jnp.minimum(labels, deltas.shape[1] - 1)
  chosen = jnp.take_along_axis(deltas, own[:, None, None], axis=1)[:, 0]
  wanted = encode_boxes(boxes, truth.boxes[jnp.maximum(samples.codes, 0)], BOX_STDS)
  difference = jnp.where(samples.positive[:, None], chosen - wanted, 0)
  return entropy.sum(), jnp.sum(smooth_l1(difference, rules.box_beta)), samples.valid.sum()


def mask_losses(
    logits: Float[Array, 's m m k'], boxes: Float[Array, 's 4'], samples: Samples, truth: Truth,
    rules: Rules, image_size: tuple[int, int],
) -> tuple[Float[Array, ''], Int[Array, '']]:
  """Computes the sum of the mask losses of one image's positive samples, and its pixels.

  Targets out of whole bitmaps are those of RoIAlign, as both libraries have them; out of masks that
  are cut to their boxes, the share of each bin, which comes closer to them than RoIAlign does.
  """
  index = jnp.maximum(samples.codes, 0)
  labels = truth.labels[index] + (rules.background == 'first')
  chosen = jnp.take_along_axis(logits, labels[:, None, None, None], axis=3)[..., 0]
  size = logits.shape[1]
  if truth.regions is None:
    whole = jnp.asarray([0, 0, image_size[1], image_size[0]], jnp.float32)
    wanted = mask_targets(
        truth.masks, jnp.broadcast_to(whole, truth.boxes.shape), boxes, index, size,
        aligned=rules.aligned, threshold=rules.mask_threshold)
  else:
    wanted = box_mask_targets(
        truth.masks.astype(jnp.float32), truth.regions, boxes, index, size)
    if rules.mask_threshold is not None:
      wanted = (wanted >= rules.mask_threshold - 1e-5).astype(jnp.float32)
  entropy = binary_cross_entropy(chosen, jax.lax.stop_gradient(wanted))
  positive = samples.positive
  return (jnp.sum(jnp.where(positive[:, None, None], entropy, 0)),
          positive.sum() * size**2)


def hardness(
    logits: Float[Array, 'c k'], codes: Int[Array, ' c'], truth: Truth, classes: int, rules: Rules,
) -> Float[Array, ' c']:
  """Computes the class loss of every candidate, the priority of online hard example mining."""
  return cross_entropy(logits, class_targets(jnp.maximum(codes, NEGATIVE), truth, classes, rules))
