"""Resizing, flips and padding of images with their boxes and masks."""
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from fcajax.input_pipeline.augment import boxes as augment
from fcajax.input_pipeline.augment.masks import bitmap, box_mask
from fcajax.input_pipeline.detection_settings import DetectionSettings
from fcajax.input_pipeline.sources.annotations import ImageRecord
from fcajax.input_pipeline.sources.coco import open_coco
from fcajax.ops.box_masks import box_mask_targets
from fcajax.preprocessing.decode import ImageError
from fcajax.preprocessing.host_formats import Coefficients, coefficient_scale

mask_utils = pytest.importorskip('pycocotools.mask')
SMALL = {'short_side': 32, 'long_side': 64, 'divisor': 16, 'max_boxes': 4, 'mask_size': 8}


class Never(np.random.Generator):
  """Draws 1: no flip. `Always` draws 0."""
  value = 1.0

  def random(self):
    return self.value


class Always(Never):
  value = 0.0



def settings(**changes):
  return DetectionSettings(**{**SMALL, **changes})


def triangle(x, y, side):
  return (np.array([x, y, x + side, y, x, y + side], np.float32),)


def record(size=(20, 30), count=2, crowd=()):
  boxes = np.array([[2 + 3 * i, 2, 10 + 3 * i, 10] for i in range(count)], np.float32)
  outlines = tuple(triangle(2 + 3 * i, 2, 8) for i in range(count))
  crowds = np.isin(np.arange(count), crowd)
  areas = np.arange(count, dtype=np.float32) + 1
  return ImageRecord(1, 'a.jpg', size, boxes, np.arange(count, dtype=np.int32), crowds, areas,
                     outlines)


def make(transform, data, record, generator=None):
  bucket = transform.bucket(record.size)
  out = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in transform.spec(bucket).items()}
  transform(data, record, bucket, out, generator)
  return out


def noise(size):
  return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize('size, expected', [
    # mmdetection 2 and 3: rescale_size((w, h), (1333, 800)).
    ((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((640, 427), (1199, 800)),
    ((360, 640), (750, 1333)), ((500, 500), (800, 800)), ((3, 2000), (2, 1333)),
    ((1, 5000), (1, 1333)), ((3000, 4000), (800, 1067))])
def test_sizes_are_mmdetections_and_fit_a_bucket(size, expected):
  default = DetectionSettings()
  assert augment.resized_size(size, default) == expected
  shape = augment.bucket_shapes(default)[augment.bucket_of(size, default)]
  assert shape[0] >= expected[0] and shape[1] >= expected[1]
  assert shape[0] % 32 == shape[1] % 32 == 0


def test_shapes_are_few_and_every_size_has_one():
  default = DetectionSettings()
  assert augment.bucket_shapes(default) == ((800, 1088), (1088, 800), (800, 1344), (1344, 800))
  wide = DetectionSettings(bucket_aspects=())
  assert augment.bucket_shapes(wide) == ((800, 1344), (1344, 800))
  square = DetectionSettings(bucket_aspects=(1,), short_side=320, long_side=320)
  assert augment.bucket_shapes(square) == ((320, 320),)
  for size in np.random.default_rng(0).integers(1, 3000, (300, 2)).tolist():
    for one in (default, wide, square):
      height, width = augment.resized_size(tuple(size), one)
      shape = augment.bucket_shapes(one)[augment.bucket_of(tuple(size), one)]
      assert 0 < height <= shape[0] and 0 < width <= shape[1]


def test_example_of_evaluation():
  transform = augment.DetectionTransform(settings(masks='box'), train=False)
  pixels = noise((20, 30))
  example = make(transform, pixels, record())
  assert example['image'].shape == (32, 48, 3) and 'masks' not in example
  assert example['image_size'].tolist() == [32, 48]
  assert example['original_size'].tolist() == [20, 30]
  np.testing.assert_allclose(example['scale'], 1.6)
  np.testing.assert_allclose(example['boxes'][:2], record().boxes * 1.6)
  assert example['valid'].tolist() == [True, True, False, False]
  assert example['labels'].tolist() == [0, 1, 0, 0] and not example['boxes'][2:].any()
  wide = make(transform, noise((20, 36)), record((20, 36)))
  assert wide['image_size'].tolist() == [32, 58] and wide['image'].shape == (32, 64, 3)
  assert wide['image'][:, :58].all(-1).mean() > 0.9 and not wide['image'][:, 58:].any()


@pytest.mark.parametrize('masks', ['box', 'bitmap'])
def test_a_flip_flips_pixels_boxes_and_masks_alike(masks):
  transform = augment.DetectionTransform(settings(masks=masks), train=True)
  plain = make(transform, noise((20, 36)), record((20, 36), crowd=[0]), Never(np.random.PCG64()))
  flipped = make(transform, noise((20, 36)), record((20, 36), crowd=[0]), Always(np.random.PCG64()))
  width = 58
  np.testing.assert_array_equal(flipped['image'][:, :width], plain['image'][:, :width][:, ::-1])
  assert not flipped['image'][:, width:].any()
  np.testing.assert_allclose(flipped['boxes'][:2, 0], width - plain['boxes'][:2, 2])
  np.testing.assert_array_equal(flipped['boxes'][:2, 1::2], plain['boxes'][:2, 1::2])
  # The object comes first, then the crowd, which has no mask.
  assert plain['crowd'].tolist() == [False, True, False, False]
  assert plain['labels'][:2].tolist() == [1, 0]
  if masks == 'box':
    first, mirrored = plain['masks'], flipped['masks'][:, :, ::-1]
  else:
    first, mirrored = (np.unpackbits(e['bitmaps'], axis=-1, count=64) for e in (plain, flipped))
    first, mirrored = first[..., :width], mirrored[..., :width][..., ::-1]
  assert first[0].any() and not first[1:].any()
  np.testing.assert_array_equal(mirrored, first)


def test_the_largest_objects_stay_where_there_are_too_many():
  transform = augment.DetectionTransform(settings(max_boxes=3, masks='box'), train=True)
  many = record(count=6, crowd=[5])
  many.outlines[3][0][:] = 0
  without = ImageRecord(**{**vars(many), 'outlines': (*many.outlines[:4], None, None)})
  example = make(transform, noise((20, 30)), without)
  assert example['labels'].tolist() == [1, 2, 3] and example['valid'].all()
  crowded = ImageRecord(**{**vars(record(count=500)), 'outlines': (None,) * 500})
  boxes_only = augment.DetectionTransform(settings(), train=True)
  assert make(boxes_only, noise((20, 30)), crowded)['labels'].tolist() == [496, 497, 498, 499]


def test_twice_the_resolution_keeps_the_boxes():
  subset = '6S'
  scale = coefficient_scale(subset, 16)
  for host_format in (augment.Rgb, lambda shape: Coefficients(shape, subset, 'half', scale, 16)):
    transform = augment.DetectionTransform(settings(enlarge=2), train=True, host_format=host_format)
    example = make(transform, noise((20, 36)), record((20, 36)))
    pixels = host_format is augment.Rgb
    assert example['image'].shape == ((64, 128, 3) if pixels else (8, 16, 6))
    assert example['image_size'].tolist() == [32, 58]
    np.testing.assert_allclose(example['boxes'][0], record().boxes[0] * example['scale'][0],
                               rtol=0.01)
    # Beyond 58 * 2 = 116 pixels, in the fifteenth block of luma, there is padding: 0 is black.
    beyond = example['image'][:, 116:] if pixels else example['image'][:, 15:, :4]
    assert len(np.unique(beyond.reshape(-1, beyond.shape[-1]), axis=0)) == 1


def jpeg(size, orientation=1):
  buffer, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(noise(size)).save(buffer, 'JPEG', exif=exif, quality=95)
  return buffer.getvalue()


def test_size_of_the_file_is_that_of_the_annotations():
  transform = augment.DetectionTransform(settings(), train=False)
  with pytest.raises(ImageError, match=r'20 x 31 pixels .* but its annotations are for 20 x 30'):
    make(transform, noise((20, 31)), record())
  with pytest.raises(ImageError, match='21 x 30'):
    make(transform, jpeg((21, 30)), record())
  stored = make(transform, jpeg((20, 30)), record())
  # Turned by EXIF, and annotated as stored: the size tells.
  as_stored = make(transform, jpeg((20, 30), orientation=6), record())
  np.testing.assert_array_equal(as_stored['image'], stored['image'])
  upright = make(transform, jpeg((20, 30), orientation=6), record((30, 20)))
  assert upright['image'].shape == (48, 32, 3)
  assert np.abs(upright['image'].astype(int)
                - np.rot90(stored['image'], -1).astype(int)).max() <= 1
  with pytest.raises(ImageError):
    make(transform, jpeg((20, 30))[:200], record())


def align(low, high, bins, size):
  """The weights of RoIAlign, aligned and adaptive, along one axis."""
  width = (high - low) / bins
  samples = max(1, int(np.ceil(width)))
  weights = np.zeros((bins, size))
  for i in range(bins):
    for position in low - 0.5 + width * (i + (np.arange(samples) + 0.5) / samples):
      if -1 <= position <= size:
        first = min(int(max(position, 0)), size - 1)
        second = min(first + 1, size - 1)
        part = min(max(position, 0) - first, 1) if second > first else 0
        weights[i, first] += (1 - part) / samples
        weights[i, second] += part / samples
  return weights


def whole_bitmap_targets(whole, rois):
  """mmdetection's rule: RoIAlign of the whole bitmap at 28 x 28, at least one half.

  Bins that are exactly half full are common, and rounding must not empty them.
  """
  return np.stack([align(y1, y2, 28, whole.shape[0]) @ whole @ align(x1, x2, 28, whole.shape[1]).T
                   for x1, y1, x2, y2 in np.asarray(rois, float)]) >= 0.5 - 1e-6


def reference(data):
  folder = data.parent / 'reference'
  if not (folder / 'detection.npz').exists():
    pytest.skip('no reference values beside the checkout')
  return np.load(folder / 'detection.npz'), json.loads((folder / 'detection.json').read_text())


def test_mask_targets_of_the_reference(shared_data):
  values, _ = reference(shared_data)
  whole = np.unpackbits(values['loss/mask/gt_bits'], axis=-1, count=90)
  expected = np.unpackbits(values['loss/mask/targets_mmdet_bits'], axis=-1, count=28)
  rois, indices = values['loss/mask/boxes'], values['loss/mask/gt_index']
  exact = [whole_bitmap_targets(whole[i], roi[None])[0] for i, roi in zip(indices, rois)]
  np.testing.assert_array_equal(exact, expected)
  truth = np.stack([[x.min(), y.min(), x.max() + 1, y.max() + 1]
                    for y, x in map(np.nonzero, whole)]).astype(np.float32)
  codes = [mask_utils.encode(np.asfortranarray(one)) for one in whole]
  masks = np.stack([box_mask(code, (70, 90), (70, 90), box, 56)
                    for code, box in zip(codes, truth)])
  got = np.asarray(box_mask_targets(masks, truth, rois, indices)) >= 0.5 - 1e-6
  assert (got != expected).mean() < 0.005


def test_mask_targets_of_photographs_are_near_those_of_whole_bitmaps(shared_data):
  """Over all objects and proposals of the set 0.21% of the pixels differ (S = 28: 0.59%)."""
  folder, default = shared_data / 'coco', DetectionSettings()
  source = open_coco(folder / 'annotations' / 'instances_val.json', folder / 'val')
  generator, different = np.random.default_rng(0), []
  targets = jax.jit(box_mask_targets)
  for index in range(0, 12, 3):
    one = source.record(index)
    resized = augment.resized_size(one.size, default)
    boxes = augment.resize_boxes(one.boxes, np.divide(resized, one.size).astype(np.float32))
    for box, outline in zip(boxes[~one.crowd][:3], one.outlines):
      sides = np.tile(box[2:] - box[:2], 2)
      rois = (box + generator.normal(0, [[0], [0.05], [0.1]], (3, 4)) * sides).astype(np.float32)
      mask = box_mask(outline, one.size, resized, box, default.mask_size)
      got = np.asarray(targets(mask[None], box[None], rois, np.zeros(3, np.int32))) >= 0.5 - 1e-6
      whole = bitmap(outline, one.size, resized).astype(float)
      different.append((got != whole_bitmap_targets(whole, rois)).mean())
  assert len(different) > 5 and np.mean(different) < 0.005
