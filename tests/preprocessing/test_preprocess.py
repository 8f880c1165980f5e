"""Decoding to upright RGB, the evaluation transform, and the arithmetic on the device."""
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from fcajax.preprocessing import decode as images
from fcajax.preprocessing.spec import (
  ImageError,
  Preprocessing,
  decode_image,
  device_transform,
  evaluation_transform,
)
from fcajax.selection import coefficients


def picture(height=48, width=64):
  """A smooth picture without symmetry: red to the right, green downwards, blue in one corner."""
  y, x = np.mgrid[:height, :width]
  return np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1),
                   255 * ((x > width / 2) & (y < height / 2))], -1).astype(np.uint8)


def encode(pixels, kind='JPEG', **options):
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  buffer = io.BytesIO()
  if kind == 'JPEG':
    options = {'quality': 95, 'subsampling': 0, **options}
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def assert_close(actual, expected, mean=2.0):
  assert actual.dtype == np.uint8 and actual.shape == expected.shape
  difference = np.abs(actual.astype(int) - expected.astype(int))
  assert difference.mean() < mean, difference.mean()


def test_colour_grey_and_formats():
  pixels = picture()
  assert_close(decode_image(encode(pixels)), pixels)
  np.testing.assert_array_equal(decode_image(encode(pixels, 'PNG')), pixels)
  assert_close(decode_image(encode(pixels, 'WEBP', lossless=True)), pixels)
  np.testing.assert_array_equal(decode_image(encode(pixels, 'BMP')), pixels)
  grey = Image.fromarray(pixels).convert('L')
  expected = np.asarray(grey.convert('RGB'))
  assert_close(decode_image(encode(grey)), expected)
  np.testing.assert_array_equal(decode_image(encode(grey, 'PNG')), expected)
  assert_close(decode_image(encode(pixels, progressive=True)), pixels)


def test_palette_and_transparency_on_white():
  pixels = picture()
  palette = Image.fromarray(pixels).convert('P', palette=Image.Palette.ADAPTIVE)
  np.testing.assert_array_equal(decode_image(encode(palette, 'PNG')),
                                np.asarray(palette.convert('RGB')))
  alpha = np.zeros((*pixels.shape[:2], 4), np.uint8)
  alpha[..., :3] = pixels
  alpha[:, 32:, 3] = 255
  decoded = decode_image(encode(Image.fromarray(alpha), 'PNG'))
  np.testing.assert_array_equal(decoded[:, :32], 255)
  np.testing.assert_array_equal(decoded[:, 32:], pixels[:, 32:])
  grey_alpha = Image.fromarray(alpha).convert('LA')
  assert (decode_image(encode(grey_alpha, 'PNG'))[:, :32] == 255).all()
  transparent = Image.new('P', (8, 8), 3)
  transparent.putpalette([10 * i % 256 for i in range(768)])
  assert (decode_image(encode(transparent, 'PNG', transparency=3)) == 255).all()
  keyed = Image.new('RGB', (8, 8), (1, 2, 3))
  assert (decode_image(encode(keyed, 'PNG', transparency=(1, 2, 3))) == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped():
  ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
  decoded = decode_image(encode(Image.fromarray(ramp), 'PNG'))
  np.testing.assert_array_equal(decoded, np.repeat(np.rint(ramp / 257)[..., None], 3, -1))


def test_one_bit_image():
  decoded = decode_image(encode(Image.fromarray(picture()).convert('1'), 'PNG'))
  assert set(np.unique(decoded)) == {0, 255}


def test_cmyk_inverted_by_adobe_or_not():
  pixels = picture()
  cmyk = Image.fromarray(pixels).convert('CMYK')
  adobe = encode(cmyk)  # Pillow writes the Adobe marker and inverts, as Photoshop does
  assert b'Adobe' in adobe
  assert_close(decode_image(adobe), pixels, 3)
  # Without the marker a decoder takes the stored values as they are: the inverse picture.
  start = adobe.index(b'\xff\xee')
  end = start + 2 + int.from_bytes(adobe[start + 2:start + 4], 'big')
  stored = Image.fromarray(255 - np.asarray(cmyk), 'CMYK')
  assert_close(decode_image(adobe[:start] + adobe[end:]), np.asarray(stored.convert('RGB')), 3)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(orientation):
  pixels = picture()
  exif = Image.Exif()
  exif[0x0112] = orientation
  for kind, tolerance in (('JPEG', 2), ('PNG', 0.01)):
    data = encode(pixels, kind, exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
      expected = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    assert_close(decode_image(data), expected, tolerance)
    region, crop = images.decode_region(data, lambda shape: ((2, 3, 20, 10), (20, 10)))
    top, left, rows, columns = (round(v) for v in crop)
    assert_close(np.ascontiguousarray(region[top:top + rows, left:left + columns]),
                 expected[2:22, 3:13], tolerance)


def test_decoded_equals_pillow_on_photographs(shared_data):
  for path in sorted((shared_data / 'photos').iterdir()):
    decoded = decode_image(path)
    with Image.open(path) as image:
      expected = np.asarray(image.convert('RGB'))
    assert_close(decoded, expected, 0.6)


def test_region_equals_full_decode(shared_data):
  """Leaving out the rows below the crop changes no pixel of it."""
  generator = np.random.default_rng(0)
  for path in sorted((shared_data / 'photos').iterdir()):
    data = path.read_bytes()
    full = decode_image(data)
    height, width = full.shape[:2]
    rows, columns = generator.integers(1, height // 2), generator.integers(1, width)
    top, left = generator.integers(0, height - rows), generator.integers(0, width - columns + 1)
    pixels, crop = images.decode_region(
        data, lambda shape, c=(top, left, rows, columns): (c, (448, 448)))
    assert crop == (top, left, rows, columns)
    np.testing.assert_array_equal(pixels[top:top + rows, left:left + columns],
                                  full[top:top + rows, left:left + columns])


@pytest.mark.parametrize('options', (
  {'progressive': True}, {'subsampling': 2}, {'subsampling': 1}, {'restart_marker_rows': 1},
  {'optimize': True, 'subsampling': 2}))
def test_region_of_every_kind_of_jpeg(options):
  data = encode(picture(123, 201), **options)
  full = decode_image(data)
  for rows in (1, 5, 6, 15, 16, 21, 22, 60, 113):
    pixels, crop = images.decode_region(data, lambda shape, r=rows: ((10, 5, r, 90), (448, 448)))
    assert crop == (10, 5, rows, 90)
    np.testing.assert_array_equal(pixels[10:10 + rows, 5:95], full[10:10 + rows, 5:95])


def test_a_header_that_claims_too_much_is_refused():
  data = bytearray(encode(picture()))
  frame = images.read_jpeg_header(bytes(data)).frame
  for size in (b'\xff\xf0\xff\xf0', b'\x00\x00\x00\x40'):
    data[frame + 5:frame + 9] = size
    with pytest.raises(ImageError, match='its header says'):
      decode_image(bytes(data))
    with pytest.raises(ImageError, match='its header says'):
      images.decode_region(bytes(data), lambda shape: ((0, 0, 1, 1), (1, 1)))


def test_decoding_releases_the_interpreter():
  """A Python thread runs on while another decodes."""
  data = encode(picture(3000, 3000))
  ticks, stop = [0], threading.Event()

  def tick():
    while not stop.wait(1e-4):
      ticks[0] += 1

  thread = threading.Thread(target=tick)
  thread.start()
  try:
    started, before = time.monotonic(), ticks[0]
    images.simplejpeg.decode_jpeg(data)
    elapsed, during = time.monotonic() - started, ticks[0] - before
  finally:
    stop.set()
    thread.join()
  # A held interpreter would let at most one tick through, whatever the load.
  assert during >= 3, (during, elapsed)


@pytest.mark.parametrize('orientation', (1, 6))
def test_region_of_a_large_image_is_decoded_small(orientation):
  pixels = picture(480, 640)
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encode(pixels, exif=exif.tobytes())
  upright = decode_image(data)
  pixels, crop = images.decode_region(data, lambda shape: ((80, 160, 240, 240), (60, 60)))
  assert pixels.shape[0] * 4 <= upright.shape[0] + 64
  np.testing.assert_allclose(crop, np.array((80, 160, 240, 240)) / 4, atol=1)
  top, left, _rows, _columns = (round(v) for v in crop)
  expected = upright[80:320, 160:400].reshape(60, 4, 60, 4, 3).mean((1, 3)).astype(np.uint8)
  assert_close(pixels[top:top + 60, left:left + 60], expected, 3)


@pytest.mark.parametrize('case', ('truncated', 'text', 'empty', 'header', 'png', 'no end'))
def test_damaged_files_are_errors(case, tmp_path):
  jpeg, png = encode(picture(200, 300)), encode(picture(200, 300), 'PNG')
  data = {'truncated': jpeg[:len(jpeg) // 2], 'text': b'this is a text file, not a photograph',
          'empty': b'', 'header': jpeg[:30], 'png': png[:len(png) // 2],
          'no end': jpeg[:-2]}[case]
  path = tmp_path / 'broken.jpg'
  path.write_bytes(data)
  with pytest.raises(ImageError, match=r'broken\.jpg'):
    decode_image(path)
  with pytest.raises(ImageError):
    images.decode_region(data, lambda shape: ((0, 0, 190, 200), (190, 200)))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    decode_image(tmp_path / 'nowhere.jpg')


def reference_evaluation(image, short, crop):
  """torchvision's Resize and CenterCrop, written with Pillow alone."""
  width, height = image.size
  size = (short, int(short * height / width)) if width <= height else (
      int(short * width / height), short)
  image = image.resize(size, Image.Resampling.BILINEAR)
  left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
  return np.asarray(image.crop((left, top, left + crop, top + crop)))


@pytest.mark.parametrize('shape', ((375, 500), (500, 334), (56, 75), (256, 300), (1024, 700)))
def test_evaluation_equals_resize_then_crop(shape):
  image = Image.effect_noise((64, 64), 90).convert('RGB').resize(shape[::-1])
  expected = reference_evaluation(image, 256, 224)
  actual = evaluation_transform(np.asarray(image), Preprocessing(224, 256))
  assert np.abs(actual.astype(int) - expected).max() <= 1


def test_evaluation_of_odd_sizes():
  assert Preprocessing(224).short_side == 256 and Preprocessing(448).short_side == 512
  tiny = evaluation_transform(picture(1, 1), Preprocessing(32))
  assert tiny.shape == (32, 32, 3)
  wide = evaluation_transform(picture(40, 300), Preprocessing((32, 96)))
  assert wide.shape == (32, 96, 3)
  same = picture(32, 32)
  np.testing.assert_array_equal(evaluation_transform(same, Preprocessing(32, 32)), same)
  with pytest.raises(ValueError, match='uint8 RGB'):
    evaluation_transform(np.zeros((8, 8)), Preprocessing(32))


def test_preprocessing_survives_json():
  for value in (Preprocessing(), Preprocessing((64, 96), 80, (0, 0, 0), (1, 1, 1), 'ycbcr'),
                Preprocessing(64, representation='dct', coefficients={'y': (0, 1), 'cb': (0,),
                                                                      'cr': ()},
                              coefficient_mean=(0, 1, 2), coefficient_std=(1, 1, 1))):
    text = json.dumps(value.to_dict())
    again = Preprocessing.from_dict(json.loads(text))
    assert again.to_dict() == value.to_dict()
  with pytest.raises(ValueError, match='colour'):
    Preprocessing.from_dict({'colour': 1})


@pytest.mark.parametrize('values, message', (
  ({'representation': 'hsv'}, 'hsv'), ({'image_size': 0}, 'image_size'),
  ({'std': (1, 0, 1)}, 'std'), ({'image_size': 33, 'representation': 'ycbcr'}, 'even'),
  ({'image_size': 100, 'representation': 'dct'}, 'multiple of 8'),
  ({'image_size': 56, 'representation': 'dct', 'chroma': 'half'}, 'multiple of 16')))
def test_impossible_preprocessing(values, message):
  with pytest.raises(ValueError, match=message):
    Preprocessing(**values)


def test_normalisation_on_the_device():
  preprocessing = Preprocessing(32)
  batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
  expected = (batch / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
  np.testing.assert_allclose(device_transform(preprocessing)(batch), expected, atol=2e-6)
  assert device_transform(preprocessing, 'bfloat16')(batch).dtype == 'bfloat16'
  dct = Preprocessing(32, representation='dct')
  with pytest.raises(ValueError, match='coefficient_scale'):
    device_transform(dct)(np.zeros((1, 4, 4, 24), np.int16))


def test_published_normalisation():
  statistics = coefficients.published_statistics()
  subset = coefficients.coefficient_subset('6S')
  mean, std = (np.array(statistics[name])[subset.flat] for name in ('mean', 'std'))
  preprocessing = Preprocessing(32, representation='dct', coefficients='6S',
                                coefficient_mean=mean, coefficient_std=std)
  batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
  plain = coefficients.rgb_to_coefficients(batch, '6S', 'full')
  np.testing.assert_allclose(device_transform(preprocessing)(batch), (plain - mean) / std,
                             rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('tables, message', [
    ({'coefficient_mean': (1.0,) * 24}, 'belong together'),
    ({'coefficient_mean': (1.0,), 'coefficient_std': (1.0,)}, "has 1 entries.*'24S' are 24"),
    ({'coefficient_mean': (1.0,) * 24, 'coefficient_std': (0.0,) * 24}, 'must be above 0'),
    ({'coefficient_scale': (1.0,) * 6}, 'coefficient_scale has 6 entries')])
def test_tables_of_coefficients_must_fit(tables, message):
  with pytest.raises(ValueError, match=message):
    Preprocessing(image_size=64, representation='dct', **tables)


def test_floats_are_no_images():
  with pytest.raises(TypeError, match=r'expected uint8 images, 0 to 255.*float32'):
    device_transform(Preprocessing(image_size=8))(np.ones((1, 8, 8, 3), np.float32))
