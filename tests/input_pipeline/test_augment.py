"""Random crops and flips on the host and on the device."""
import jax
import numpy as np
from PIL import Image

from fcajax.input_pipeline.augment import device as device_augment
from fcajax.input_pipeline.augment import host as augment
from fcajax.input_pipeline.normalization import make_preprocessing
from fcajax.input_pipeline.reading import example_generator
from fcajax.input_pipeline.settings import DataSettings
from fcajax.preprocessing import host_formats


def draw(seed, position):
  return augment.draw(example_generator(seed, position))


def test_random_crops_have_the_asked_area_and_ratio():
  crops = np.array([augment.random_crop(300, 400, (0.08, 1), (3 / 4, 4 / 3), draw(7, i))
                    for i in range(3000)])
  top, left, rows, columns = crops.T
  assert (top >= 0).all() and (left >= 0).all()
  assert (top + rows <= 300).all() and (left + columns <= 400).all()
  area, ratio = rows * columns / 120000, columns / rows
  assert 0.078 < area.min() < 0.1 and 0.4 < area.mean() < 0.45  # large crops fit less often
  assert 0.74 < ratio.min() and ratio.max() < 1.35 and abs(np.log(ratio).mean()) < 0.05
  # A strip fits no ratio of the range: the largest allowed centre crop is taken.
  assert augment.random_crop(10, 1000, (0.5, 1), (1, 1), draw(0, 0)) == (0, 495, 10, 10)


def test_host_crop_equals_pillow_crop_and_resize(shared_data):
  """The same crop by Pillow, whose filter averages; enlarging, both interpolate alike."""
  settings = DataSettings(image_size=448, flip=False)
  transform = augment.TrainTransform(settings, make_preprocessing(settings), True,
                                     host_formats.Rgb((448, 448)))
  out = np.zeros((448, 448, 3), np.uint8)
  for position, path in enumerate(sorted((shared_data / 'photos').iterdir())[:12]):
    transform(path.read_bytes(), out, example_generator(0, position))
    with Image.open(path) as image:
      image = image.convert('RGB')
      top, left, rows, columns = augment.random_crop(
          *image.size[::-1], settings.crop_area, settings.crop_ratio, draw(0, position))
      expected = image.crop((left, top, left + columns, top + rows)).resize(
          (448, 448), Image.Resampling.BILINEAR)
    assert np.abs(out.astype(int) - np.asarray(expected)).mean() < 1.5


def test_flip_mirrors_half_of_the_images():
  pixels = np.zeros((16, 16, 3), np.uint8)
  pixels[:, :8] = 255
  settings = DataSettings(image_size=16, crop_area=(1, 1), crop_ratio=(1, 1))
  out = np.zeros((16, 16, 3), np.uint8)
  mirrored = []
  for mirror in (True, False):
    transform = augment.TrainTransform(settings, make_preprocessing(settings), mirror,
                                       host_formats.Rgb((16, 16)))
    for position in range(200):
      transform(pixels, out, example_generator(0, position))
      assert (out == pixels).all() or (out == pixels[:, ::-1]).all()
      mirrored.append(out[0, 0, 0] == 0)
  assert 70 < sum(mirrored[:200]) < 130 and not any(mirrored[200:])


def test_device_augmentation_is_pure_and_seeded(key):
  images = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
  settings = DataSettings(image_size=16)
  apply = jax.jit(device_augment.make(settings, make_preprocessing(settings), True))
  first, again = apply(key, images), apply(key, images)
  other = apply(jax.random.key(1), images)
  np.testing.assert_array_equal(first, again)
  assert first.shape == (6, 16, 16, 3) and first.dtype == np.uint8
  assert not np.array_equal(first, other)


def test_device_crop_of_the_whole_image_is_a_resize(key):
  smooth = np.asarray(Image.fromarray(np.random.default_rng(0).integers(
      0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40), Image.Resampling.BICUBIC))
  result = device_augment.random_resized_crop(key, smooth[None], (1, 1), (1, 1), (20, 20))
  expected = np.asarray(Image.fromarray(smooth).resize((20, 20), Image.Resampling.BILINEAR))
  assert np.abs(np.asarray(result[0]).astype(int) - expected).max() <= 2
  same = device_augment.random_resized_crop(key, smooth[None], (1, 1), (1, 1), (40, 40))
  np.testing.assert_array_equal(same[0], smooth)
