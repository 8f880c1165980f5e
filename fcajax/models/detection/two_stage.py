"""Faster R-CNN and Mask R-CNN with a feature pyramid on any backbone of the registry."""
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from fcajax.errors import UserError
from fcajax.models.backbones.dct_input import DctInput
from fcajax.models.detection.backbone import (
  NORMALIZATIONS,
  backbone_features,
)
from fcajax.models.detection.heads import BoxHead, MaskHead, ProposalHead
from fcajax.models.detection.rules import Rules, resolve_rules
from fcajax.models.detection.stages import (
  ANCHOR_RATIOS,
  detect,
  level_anchors,
  propose,
)
from fcajax.models.detection.targets import (
  Sampling,
  Truth,
  box_losses,
  candidates,
  hardness,
  mask_losses,
  rpn_losses,
)
from fcajax.models.necks.fpn import FeaturePyramid
from fcajax.ops.anchors import anchors_on_image
from fcajax.ops.matching import random_priority, sample
from fcajax.ops.roi_align import multilevel_roi_align
from fcajax.typing import AnyArray, Array, Float, Int, Num

LOSSES = ('rpn_class', 'rpn_box', 'box_class', 'box_box', 'mask')


class TwoStageDetector(nn.Module):
  """Faster R-CNN, and with `masks` Mask R-CNN, behind a feature pyramid.

      model = create_model('mask_rcnn_fpn', backbone='fca_resnet50', num_classes=80)
      variables = model.init(jax.random.key(0), images)
      found = model.apply(variables, images, image_sizes)
      losses, updates = model.apply(
          variables, images, image_sizes, truth, train=True, mutable=['batch_stats'],
          rngs={'sampler': key})

  No shape depends on the data: boxes are padded to fixed numbers and masked. The defaults are
  those of mmdetection 2.x; `rules='torchvision'` changes every convention in which torchvision
  differs, `rule_options` a single one.

  Attributes:
    num_classes: classes without the background.
    backbone: the classifier that gives the features; `create_model` takes its name.
    backbone_options: for `create_model`, fields of that classifier or of its attention.
    masks: with a mask head.
    rules: 'mmdet' or 'torchvision', see `Rules`.
    rule_options: fields of `Rules` to replace.
    norm: batch norm of the backbone. 'frozen' keeps the statistics of the imported weights and
      trains scale and bias (mmdetection's `norm_eval`); 'frozen_affine' keeps those too
      (torchvision; see `frozen_pattern`); 'batch' takes the statistics of the batch, 'sync' of the
      batch on all devices of `axis_name`. Frozen stages keep their statistics in any mode.
    frozen_stages: the stem and this many stages are not trained; -1 trains all.
    axis_name: device axis of 'sync' and of the losses' normalisers.
    pixels_per_cell: pixels of the boxes' image per cell of the input: 1 for images; coefficients
      of an image of twice the size have 8 / 2 = 4. None: 4 for backbones on coefficients, else 1.
    channels: width of the pyramid and of the proposal head.
    levels: maps of the pyramid.
    proposals_before, proposals_after: (training, inference) proposals of a level before
      suppression, and of an image behind it.
    proposal_nms: IoU of that suppression.
    rpn_sampling: samples of an image (None: all) and largest share of positive ones.
    box_sampling: the same of the box head; its positive samples train the mask head.
    ohem: takes the box head's samples of the highest class loss in place of random ones.
    score_threshold, detection_nms, detections: of inference.
    box_size, mask_size: bins of RoIAlign; masks have twice as many.
    dtype: compute dtype; parameters, regressions, scores and losses stay float32.

  Sources: Ren et al., "Faster R-CNN", 2015; Lin et al., "Feature Pyramid Networks", 2017; He et
  al., "Mask R-CNN", 2017; on coefficients: Xu et al., "Learning in the Frequency Domain", 2020.
  """
  num_classes: int = 80
  backbone: Any = 'resnet50'
  backbone_options: Mapping | None = None
  masks: bool = False
  rules: str = 'mmdet'
  rule_options: Mapping | None = None
  norm: str = 'frozen'
  frozen_stages: int = 1
  axis_name: Any = None
  pixels_per_cell: int | None = None
  channels: int = 256
  levels: int = 5
  proposals_before: tuple[int, int] = (2000, 1000)
  proposals_after: tuple[int, int] = (1000, 1000)
  proposal_nms: float = 0.7
  rpn_sampling: tuple[int | None, float] = (256, 0.5)
  box_sampling: tuple[int | None, float] = (512, 0.25)
  ohem: bool = False
  score_threshold: float = 0.05
  detection_nms: float = 0.5
  detections: int = 100
  box_size: int = 7
  mask_size: int = 14
  dtype: Any = None

  @property
  def rule_set(self) -> Rules:
    """The rules with this detector's changes."""
    return resolve_rules(self.rules, self.rule_options)

  def setup(self):
    if isinstance(self.backbone, str):
      raise UserError(f'backbone={self.backbone!r} is a name: build the detector with create_model')
    if self.norm not in NORMALIZATIONS:
      raise UserError(f'norm={self.norm!r} is not one of {", ".join(map(repr, NORMALIZATIONS))}')
    own = self.num_classes + (self.rule_set.background == 'first')
    self.neck = FeaturePyramid(self.channels, self.levels, dtype=self.dtype)
    self.rpn = ProposalHead(len(ANCHOR_RATIOS), self.channels, dtype=self.dtype)
    self.box_head = BoxHead(self.num_classes + 1, own, dtype=self.dtype)
    if self.masks:
      self.mask_head = MaskHead(own, dtype=self.dtype)

  def __call__(
      self, images: Num[Array, 'n h w c'], image_sizes: Int[AnyArray, 'n 2'] | None = None,
      truth: Truth | None = None, train: bool = False, capture_features: bool = False,
  ) -> Any:
    """Finds the objects of a batch, or computes the losses of a batch with ground truth.

    Args:
      images: normalised images, or coefficients, padded to one size on the right and below.
      image_sizes: (height, width) of each image without padding, in pixels of the boxes' image;
        None, there is no padding.
      truth: the ground truth; draws samples from the stream 'sampler'.
      train: whether batch norm uses the batch's statistics, and how many proposals there are.
      capture_features: also return what lies between, by name.

    Returns:
      Without `truth` a dict of 'boxes' `[N, D, 4]`, 'scores', 'labels' (classes from 0, -1 for
      padding) and 'valid' `[N, D]`, and with `masks` the probabilities 'masks' `[N, D, 28, 28]` of
      each box's class. With `truth` the dict of the losses `LOSSES` (without 'mask' where there
      is no mask head). With `capture_features` the pair (that, dict of what lies between).
    """
    rules, seen = self.rule_set, {}
    scale = self._pixels_per_cell()
    size = (images.shape[1] * scale, images.shape[2] * scale)
    if image_sizes is None:
      image_sizes = jnp.tile(jnp.asarray(size, jnp.int32), (images.shape[0], 1))
    image_sizes = jnp.asarray(image_sizes)
    pyramid, strides = self._pyramid(images, train, scale)
    logits, deltas = self._propose_on(pyramid)
    anchors = level_anchors([p.shape[1:3] for p in pyramid], strides, size, rules)
    proposals = jax.vmap(lambda lo, de, sz: propose(
        lo, de, anchors, sz, rules, self.proposals_before[not train],
        self.proposals_after[not train], self.proposal_nms))(logits, deltas, image_sizes)
    proposals = lax.stop_gradient(proposals)
    seen.update(features=pyramid, rpn_logits=logits, rpn_deltas=deltas, proposals=proposals)
    maps = pyramid[:4], strides[:4]
    if truth is None:
      out = self._detect(maps, proposals, image_sizes, seen)
    else:
      grids = [p.shape[1:3] for p in pyramid]
      inside = self._inside(image_sizes, grids, strides)
      out = self._losses(maps, (logits, deltas, anchors, inside), proposals,
                         self._complete(truth), size, seen)
    return (out, seen) if capture_features else out

  def _pixels_per_cell(self):
    if self.pixels_per_cell is not None:
      return self.pixels_per_cell
    return 4 if isinstance(self.backbone, DctInput) else 1

  def _pyramid(self, images, train, scale):
    found = backbone_features(
        self.backbone, images, train, self.frozen_stages, self.norm.startswith('frozen'))
    # From a stride of 4 pixels on: anything finer is a stem's business.
    found = [(cells * scale, x) for cells, x in found if cells * scale >= 4]
    strides = [stride for stride, _ in found]
    pyramid = self.neck([x for _, x in found])
    while len(strides) < len(pyramid):
      strides.append(2 * strides[-1])
    return pyramid, strides

  def _propose_on(self, pyramid):
    logits, deltas = zip(*(self.rpn(x) for x in pyramid))
    return ([x.reshape(x.shape[0], -1) for x in logits],
            [x.reshape(x.shape[0], -1, 4) for x in deltas])

  def _inside(self, image_sizes, grids, strides):
    """The anchors that take part in training, `[N, anchors]`."""
    count = len(ANCHOR_RATIOS)
    if not self.rule_set.anchors_on_image:
      total = count * sum(h * w for h, w in grids)
      return jnp.ones((image_sizes.shape[0], total), bool)
    return jax.vmap(lambda sz: jnp.concatenate([
        anchors_on_image(g, s, count, sz) for g, s in zip(grids, strides)]))(image_sizes)

  def _roi_features(self, maps, boxes, size, valid):
    """RoIAlign of `[N, R, 4]` boxes: `[N * R, size, size, C]`."""
    rules = self.rule_set
    found = multilevel_roi_align(
        *maps, boxes, size, rules.sampling_ratio, rules.aligned, rules.level_rule, valid)
    return found.reshape(-1, *found.shape[2:])

  def _box_outputs(self, maps, boxes, valid):
    """Class logits `[N, R, K]` and regressions `[N, R, B, 4]` of boxes."""
    logits, deltas = self.box_head(self._roi_features(maps, boxes, self.box_size, valid))
    return (logits.reshape(*boxes.shape[:2], -1),
            deltas.reshape(*boxes.shape[:2], *deltas.shape[1:]))

  def _mask_outputs(self, maps, boxes, valid):
    """Mask logits `[N, R, 2m, 2m, K]` of boxes."""
    logits = self.mask_head(self._roi_features(maps, boxes, self.mask_size, valid))
    return logits.reshape(*boxes.shape[:2], *logits.shape[1:])

  def _detect(self, maps, proposals, image_sizes, seen):
    rules = self.rule_set
    logits, deltas = self._box_outputs(maps, proposals.boxes, proposals.valid)
    found = jax.vmap(lambda lo, de, pr, sz: detect(
        lo, de, pr, sz, rules, self.score_threshold, self.detection_nms, self.detections))(
            logits, deltas, proposals, image_sizes)
    seen.update(box_logits=logits, box_deltas=deltas)
    out = found._asdict()
    if self.masks:
      masks = seen['mask_logits'] = self._mask_outputs(maps, found.boxes, found.valid)
      own = jnp.maximum(found.labels, 0) + (rules.background == 'first')
      masks = jnp.take_along_axis(masks, own[..., None, None, None], axis=-1)[..., 0]
      out['masks'] = nn.sigmoid(masks)
    return out

  def _complete(self, truth):
    """The ground truth with what may be left out filled in."""
    if self.masks and truth.masks is None:
      raise UserError('a detector with masks needs truth.masks; use masks=False to train on boxes')
    fill = {
        'crowd': jnp.zeros_like(truth.valid),
        'index': jnp.arange(truth.valid.shape[0]),
    }
    return truth._replace(**{k: v for k, v in fill.items() if getattr(truth, k) is None})

  def _losses(self, maps, rpn, proposals, truth, size, seen):
    """The five losses, each a sum over the batch divided by its number of samples."""
    rules, sampler = self.rule_set, self.make_rng('sampler')
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(sampler, i)))(truth.index)
    logits, deltas, anchors, inside = rpn
    logits, deltas = jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)
    anchors = jnp.concatenate(anchors)
    without_masks = truth._replace(masks=None, regions=None)

    def rpn_of_image(lo, de, ins, tr, key):
      return rpn_losses(lo, de, anchors, ins, tr, random_priority(key, lo.shape[0]), rules,
                        Sampling(*self.rpn_sampling))
    entropy, box, count = jax.vmap(rpn_of_image)(logits, deltas, inside, without_masks, keys[:, 0])
    losses = {'rpn_class': self._mean(entropy, count), 'rpn_box': self._mean(box, count)}

    boxes, samples = self._sample_boxes(maps, proposals, without_masks, keys[:, 1])
    logits, deltas = self._box_outputs(maps, boxes, samples.valid)
    entropy, box, count = jax.vmap(lambda lo, de, b, s, tr: box_losses(
        lo, de, b, s, tr, self.num_classes, rules))(logits, deltas, boxes, samples, without_masks)
    losses |= {'box_class': self._mean(entropy, count), 'box_box': self._mean(box, count)}
    seen.update(sampled_boxes=boxes, samples=samples, box_logits=logits, box_deltas=deltas)

    if self.masks:
      # Positive samples come first, so that the rest of the slots need no masks.
      slots = self._positive_slots(boxes.shape[1])
      boxes, samples = boxes[:, :slots], jax.tree.map(lambda x: x[:, :slots], samples)
      logits = self._mask_outputs(maps, boxes, samples.positive)
      entropy, count = jax.vmap(lambda lo, b, s, tr: mask_losses(lo, b, s, tr, rules, size))(
          logits, boxes, samples, truth)
      losses['mask'] = self._mean(entropy, count)
    return losses

  def _positive_slots(self, slots):
    number, fraction = self.box_sampling
    return slots if number is None else min(slots, max(1, int(number * fraction)))

  def _sample_boxes(self, maps, proposals, truth, keys):
    """Boxes that the box head is trained on, `[N, S, 4]`, with their `Samples`."""
    rules = self.rule_set
    assigner = rules.mask_assigner if self.masks else rules.box_assigner
    boxes, codes = jax.vmap(lambda p, v, tr: candidates(p, v, tr, assigner))(
        proposals.boxes, proposals.valid, truth)
    if self.ohem:
      logits, _ = self._box_outputs(maps, boxes, codes >= -1)
      priority = jax.vmap(lambda lo, c, tr: hardness(lo, c, tr, self.num_classes, rules))(
          lax.stop_gradient(logits), codes, truth)
    else:
      priority = jax.vmap(lambda key: random_priority(key, boxes.shape[1]))(keys)
    samples = jax.vmap(lambda c, p: sample(c, p, *self.box_sampling))(codes, priority)
    return jnp.take_along_axis(boxes, samples.indices[..., None], axis=1), samples

  def _mean(self, sums: Float[Array, ' n'], counts: Int[Array, ' n']) -> Float[Array, '']:
    """The sum of a loss by its number of samples, which is averaged over the devices.

    So the mean of the devices' losses is the loss of the whole batch.
    """
    count = counts.sum().astype(jnp.float32)
    if self.axis_name is not None and not self.is_initializing():
      count = lax.pmean(count, self.axis_name)
    return sums.sum() / jnp.maximum(count, 1)


def frozen_pattern(model: TwoStageDetector) -> str:
  """Returns a regular expression that finds the names of the parameters that are not trained.

  These are the frozen stages, and with `norm='frozen_affine'` all batch norms of the backbone; ''
  if there are none. Their gradients are 0, but weight decay would change them. Names are paths such
  as 'backbone/stage1/block0/conv1/kernel'.
  """
  parts = []
  if model.frozen_stages >= 0 and not isinstance(model.backbone, DctInput):
    parts.append('stem')
  if model.frozen_stages > 0:
    parts.append(f'stage[1-{model.frozen_stages}]/')
  if model.norm == 'frozen_affine':
    parts.append('(.*/)?[^/]*norm[^/]*/')
  return f'^backbone/({"|".join(parts)})' if parts else ''


VARIANTS = {
    'faster_rcnn_fpn': functools.partial(TwoStageDetector),
    'mask_rcnn_fpn': functools.partial(TwoStageDetector, masks=True),
}
