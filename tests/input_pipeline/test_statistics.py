"""Coefficient statistics, and the representations that use them."""
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fcajax import input_pipeline
from fcajax.cli import main as cli
from fcajax.input_pipeline.augment import host as augment
from fcajax.input_pipeline.normalization import make_preprocessing
from fcajax.input_pipeline.reading import CorruptDataError
from fcajax.input_pipeline.settings import DataSettings
from fcajax.input_pipeline.tools import statistics
from fcajax.ops import color
from fcajax.ops.block_dct import block_dct
from fcajax.ops.dct import dct_basis
from fcajax.preprocessing import host_formats
from fcajax.preprocessing.spec import (
  Preprocessing,
  decode_image,
  device_transform,
  evaluation_transform,
)
from fcajax.selection import coefficients
from tests.helpers.planes import enlarge_and_halve


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Colour JPEG (4:2:0 and 4:4:4), PNG and grey images of several sizes, in two classes."""
  root = tmp_path_factory.mktemp('images')
  generator = np.random.default_rng(0)
  for split, count in (('train', 7), ('val', 2)):
    for name in ('a', 'b'):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        small = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((50 + 7 * i, 60), Image.Resampling.BICUBIC)
        if i == 1:
          image = image.convert('L')
        path = root / split / name / f'{i}.{"png" if i == 2 else "jpg"}'
        image.save(path, **({'subsampling': i % 3} if i != 2 else {}))
  return root


def config(root, **values):
  return {'source': 'folder', 'root': str(root), 'image_size': 32, 'representation': 'dct',
          'chroma': 'full', **values}


def create(data_config, **values):
  return input_pipeline.create(data_config, batch_size=4, eval_batch_size=4, seed=0,
                               process_index=0, process_count=1, **values)


def reference_values(root, data_config):
  """All values of each column over the training images, by definition."""
  settings = DataSettings.from_config(data_config)
  preprocessing = Preprocessing(settings.image_size, settings.resize_size)
  images = np.stack([evaluation_transform(decode_image(path), preprocessing)
                     for path in sorted((root / 'train').rglob('*.*'))])
  if settings.representation == 'dct':
    values = coefficients.rgb_to_coefficients(images, '192', settings.chroma)
  elif settings.representation == 'ycbcr':
    values = color.rgb_to_ycbcr(images) / 255
  else:
    values = jnp.asarray(images) / 255
  return np.asarray(values, np.float64).reshape(-1, values.shape[-1])


@pytest.fixture(scope='module')
def measured(folder, tmp_path_factory):
  """Statistics of the folder, chroma 'full' and 'half': a path each."""
  directory = tmp_path_factory.mktemp('statistics')
  paths = {}
  for chroma in ('full', 'half'):
    paths[chroma] = str(directory / f'{chroma}.json')
    statistics.compute(config(folder, chroma=chroma), paths[chroma])
  return paths


@pytest.mark.parametrize('values', ({'chroma': 'full'}, {'chroma': 'half'},
                                    {'representation': 'ycbcr'}, {'representation': 'rgb'}))
def test_statistics_are_those_of_every_value(folder, tmp_path, values):
  data_config = config(folder, **values)
  result = statistics.compute(data_config, tmp_path / 's.json', batch_size=4)
  expected = reference_values(folder, data_config)
  np.testing.assert_allclose(result['mean'], expected.mean(0), atol=2e-3)
  np.testing.assert_allclose(result['std'], expected.std(0), rtol=1e-4, atol=1e-5)
  assert json.loads((tmp_path / 's.json').read_text()) == result
  assert result['images'] == 14 and result['image_size'] == [32, 32]
  assert not list(tmp_path.glob('*.part-*'))


def test_moments_are_stable_far_from_zero():
  generator = np.random.default_rng(0)
  values = 1e8 + generator.normal(size=(1000, 2))
  moments = statistics.RunningMoments(2)
  for group in np.split(values, [1, 10, 400]):
    mean = group.mean(0)
    moments.merge(len(group), mean, ((group - mean) ** 2).sum(0))
  np.testing.assert_allclose(moments.std, values.std(0), rtol=1e-6)


def test_an_interrupted_run_continues(folder, tmp_path):
  data_config = config(folder)
  whole = statistics.compute(data_config, tmp_path / 'whole.json', batch_size=4)
  output = tmp_path / 'parts.json'
  assert statistics.compute(data_config, output, batch_size=4, max_batches=2) is None
  assert not output.exists()
  with pytest.raises(ValueError, match='remove it to start again'):
    statistics.compute(config(folder, chroma='half'), output, batch_size=4)
  assert statistics.compute(data_config, output, batch_size=4) == whole


def test_processes_share_the_images(folder, tmp_path):
  data_config = config(folder)
  whole = statistics.compute(data_config, tmp_path / 'whole.json', batch_size=4)
  output = tmp_path / 'shared.json'
  results = [statistics.compute(data_config, output, batch_size=4, process=(i, 3))
             for i in range(3)]
  assert results[:2] == [None, None]
  np.testing.assert_allclose(results[2]['mean'], whole['mean'], rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(results[2]['std'], whole['std'], rtol=1e-9)


def test_corrupt_images_are_left_out(folder, tmp_path):
  root = tmp_path / 'images'
  for path in folder.rglob('*.*'):
    target = root / path.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes() if path.name != '0.jpg' or 'a' not in path.parts else b'x')
  with pytest.raises(CorruptDataError, match=r'1 of 14 images .* a/0\.jpg'):
    statistics.compute(config(root), tmp_path / 's.json')
  result = statistics.compute(config(root, max_corrupt_fraction=0.1), tmp_path / 't.json')
  assert result['images'] == 13 and result['skipped'] == ['a/0.jpg']


def test_the_command(folder, tmp_path, capsys):
  configuration = tmp_path / 'config.py'
  configuration.write_text(
      'from fcajax.configs import common\n'
      'def get_config():\n'
      '  config = common.get_config()\n'
      f'  config.data.update({config(folder)!r})\n'
      '  return config\n')
  output = tmp_path / 'statistics.json'
  command = ['statistics', f'--config={configuration}', f'--output={output}',
             '--config.data.image_size=16']
  assert cli.main(command) == 0
  out, err = capsys.readouterr()
  assert '14 images' in out and '14/14 images' in err
  assert len(json.loads(output.read_text())['mean']) == 192
  for word, message in (('--config.data.root=/nowhere', "data.root='/nowhere'"),
                        ('--config.data.rot=/x', 'did you mean --config.data.root'),
                        ('--config.model.width=abc', "config.model.width='abc' must be")):
    assert cli.main([*command, word]) == 2
    assert message in capsys.readouterr().err


def test_without_an_output_the_config_names_the_file(capsys):
  assert cli.main(['statistics', '--config', 'folder']) == 2
  assert 'data.statistics' in capsys.readouterr().err


def inputs_of(data_config):
  """Model inputs of all evaluation images."""
  pipeline = create(data_config)
  transform = device_transform(pipeline.preprocessing)
  return np.concatenate([np.asarray(transform(batch['image']))
                         for batch in pipeline.evaluation_batches()])


@pytest.mark.parametrize('chroma', ('full', 'half'))
@pytest.mark.parametrize('subset', ('24S', '192', {'y': (0, 9), 'cb': (), 'cr': (63,)}))
def test_every_host_format_gives_the_coefficients_of_the_pixel_path(folder, chroma, subset):
  common = config(folder, chroma=chroma, coefficients=subset, normalization='none')
  pixels = inputs_of({**common, 'host_format': 'rgb'})
  assert pixels.shape == (4, 4, 4, len(coefficients.coefficient_subset(subset)))
  # Pixels of Y, Cb and Cr are rounded to 8 bits on the way: at most 4 in a coefficient, and for
  # the published chroma the host keeps them at full size.
  host = inputs_of({**common, 'dct_on': 'host'})
  assert np.abs(host - pixels).max() < 4.1 and np.abs(host - pixels).mean() < 0.4
  planes = inputs_of({**common, 'host_format': '420'})
  luma = len(coefficients.coefficient_subset(subset).y)
  assert np.abs(planes - pixels)[..., :luma].max() < 4.1
  if chroma == 'half':
    assert np.abs(planes - pixels).max() < 8 and np.abs(planes - pixels).mean() < 0.6


@pytest.mark.parametrize('bits', (16, 8))
def test_integer_coefficients_have_the_stated_error(folder, measured, bits):
  data_config = config(folder, statistics=measured['full'], dct_on='host', dct_bits=bits)
  settings = DataSettings.from_config(data_config)
  preprocessing = make_preprocessing(settings)
  sender = host_formats.choose(settings, preprocessing)
  scale = np.array(preprocessing.coefficient_scale)
  assert sender.dtype == (np.int16 if bits == 16 else np.int8)
  for path in sorted((folder / 'val').rglob('*.*')):
    rgb = evaluation_transform(decode_image(path), preprocessing)
    out = np.zeros(sender.shape, sender.dtype)
    sender.write(rgb, out)
    luma, *chroma = (plane.astype(np.float32) for plane in host_formats._ycbcr(rgb))
    smooth = np.asarray(enlarge_and_halve(jnp.stack(chroma, -1)[None]))[0]
    planes = np.concatenate([luma[..., None], smooth], -1)[None]
    exact = np.asarray(block_dct(planes, indices=coefficients.coefficient_subset('24S').components))
    limit = scale * (2 ** (bits - 1) - 1)
    error = np.abs(out * scale - np.clip(exact[0], -limit, limit))
    assert (error <= scale / 2 + 2e-3).all()
  if bits == 16:
    assert scale.max() < 0.032
  else:
    std = np.array(preprocessing.coefficient_std)
    assert (scale <= 8 * std / 127 * 1.0001).all()
    quantised = inputs_of(data_config)
    plain = inputs_of(config(folder, statistics=measured['full'], host_format='rgb'))
    # In units of a deviation, at most half a step of 0.063 and the rounding of the pixels.
    assert np.abs(quantised - plain).mean() < 0.05


def test_sixteen_bits_hold_every_possible_coefficient():
  """The extreme pixels of each basis image reach the bound and are not clipped."""
  basis = dct_basis(8, dtype=np.float64)
  scale = host_formats.coefficient_scale('192', 16)
  sender = host_formats.Coefficients((8, 8), '192', 'full', scale, 16)
  for index in (0, 1, 9, 63):
    pattern = np.outer(basis[:, index // 8], basis[:, index % 8])
    grey = np.where(pattern < 0, 0, 255).astype(np.uint8)
    out = np.zeros(sender.shape, np.int16)
    sender.write(np.repeat(grey[..., None], 3, -1), out)
    exact = (pattern * (grey - 128.0)).sum()
    assert abs(out[0, 0, index] * scale[index] - exact) <= scale[index] / 2 + 2e-3
    assert abs(exact) > 0.99 * host_formats.coefficient_bound([index])[0]


def test_training_batches_travel_in_the_chosen_form(folder, measured):
  for values, shape, dtype in (
      ({'host_format': 'rgb'}, (4, 32, 32, 3), np.uint8),
      ({'host_format': '420'}, (4, 48, 32), np.uint8),
      ({'dct_on': 'host'}, (4, 4, 4, 24), np.int16),
      ({'dct_on': 'host', 'dct_bits': 8}, (4, 4, 4, 24), np.int8)):
    pipeline = create(config(folder, statistics=measured['full'], **values))
    batch = next(pipeline.train_iterator())
    assert batch['image'].shape == shape and batch['image'].dtype == dtype
    inputs = device_transform(pipeline.preprocessing, 'bfloat16')(batch['image'])
    assert inputs.shape == (4, 4, 4, 24) and inputs.dtype == 'bfloat16'
    values = np.asarray(inputs, np.float32)
    assert np.abs(values).max() < 40 and 0.2 < values.std() < 3
  half = create(config(folder, statistics=measured['half'], chroma='half'))
  assert next(half.train_iterator())['image'].shape == (4, 48, 32)


def test_training_crops_do_not_depend_on_the_host_format(folder):
  plain = create(config(folder, normalization='none', host_format='rgb'))
  other = create(config(folder, normalization='none', dct_on='host'))
  first, second = (np.asarray(device_transform(p.preprocessing)(next(p.train_iterator())['image']))
                   for p in (plain, other))
  assert np.abs(first - second).max() < 4.1


def test_ycbcr_as_planes(folder, tmp_path):
  path = str(tmp_path / 'ycbcr.json')
  statistics.compute(config(folder, representation='ycbcr'), path)
  data_config = config(folder, representation='ycbcr', statistics=path)
  pixels, planes = inputs_of(data_config), inputs_of({**data_config, 'host_format': '420'})
  assert pixels.shape == planes.shape == (4, 32, 32, 3)
  np.testing.assert_allclose(planes[..., 0], pixels[..., 0], atol=0.02)
  assert np.abs(planes - pixels).mean() < 0.1  # chroma at half the resolution
  everything = inputs_of({**data_config, 'eval_split': 'train'})[:14]
  np.testing.assert_allclose(everything.mean((0, 1, 2)), 0, atol=1e-3)
  np.testing.assert_allclose(everything.std((0, 1, 2)), 1, atol=1e-3)


def test_normalised_coefficients_have_unit_variance(folder, measured):
  everything = inputs_of(config(folder, statistics=measured['full'], eval_split='train'))
  flat = everything[:14].reshape(-1, 24)
  np.testing.assert_allclose(flat.mean(0), 0, atol=2e-3)
  np.testing.assert_allclose(flat.std(0), 1, atol=2e-3)


def test_in_memory_sets_send_pixels(folder, measured):
  data_config = config(folder, statistics=measured['full'], in_memory=True, dct_on='host')
  pipeline = create(data_config)
  batch = next(iter(pipeline.evaluation_batches()))
  assert batch['image'].shape == (4, 32, 32, 3)
  assert device_transform(pipeline.preprocessing)(batch['image']).shape == (4, 4, 4, 24)


def test_a_subset_of_a_file_is_stored_by_its_content(folder, tmp_path):
  path = tmp_path / 'subset.json'
  path.write_text(json.dumps({'y': [0, 1, 8], 'cb': [0], 'cr': [0]}))
  preprocessing = create(config(folder, normalization='none',
                                coefficients=str(path))).preprocessing
  path.unlink()
  again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
  images = np.zeros((1, 32, 32, 3), np.uint8)
  assert device_transform(again)(images).shape == (1, 4, 4, 5)


@pytest.mark.parametrize('values, message', (
  ({}, 'fcajax statistics'), ({'representation': 'ycbcr'}, 'fcajax statistics'),
  ({'coefficients': '25S'}, '25S'), ({'coefficients': {'y': (0, 0)}}, 'twice'),
  ({'coefficients': {'y': (64,)}}, 'outside 0'), ({'image_size': 36}, 'multiple of 8'),
  ({'image_size': 40, 'chroma': 'half'}, 'multiple of 16'),
  ({'dct_on': 'host', 'dct_bits': 8, 'normalization': 'none'}, 'dct_bits=8'),
  ({'chroma': 'quarter', 'normalization': 'none'}, 'quarter'),
  ({'host_format': 'jpeg'}, "'jpeg'"), ({'statistics': 'nowhere.json'}, r'nowhere\.json')))
def test_wrong_dct_settings(folder, values, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    create(config(folder, **values))


def test_statistics_of_something_else_are_refused(folder, measured, tmp_path):
  with pytest.raises(ValueError, match='chroma=full'):
    create(config(folder, statistics=measured['full'], chroma='half'))
  with pytest.raises(ValueError, match='image_size'):
    create(config(folder, statistics=measured['full'], image_size=48))
  with pytest.raises(ValueError, match="representation='dct'"):
    create(config(folder, statistics=measured['full'], representation='ycbcr'))
  content = json.loads(pathlib.Path(measured['full']).read_text())
  few = {**content, 'coefficients': '6S', 'mean': [0] * 6, 'std': [1] * 6}
  (tmp_path / 'few.json').write_text(json.dumps(few))
  with pytest.raises(ValueError, match='not'):
    create(config(folder, statistics=str(tmp_path / 'few.json')))


def test_photographs_of_every_kind_agree(shared_data):
  """Camera JPEGs of every subsampling and grey: the planes give the pixel path's coefficients."""
  preprocessing = Preprocessing(64, representation='dct', chroma='half', coefficients='24S')
  transform = device_transform(preprocessing)
  sender = host_formats.Planes((64, 64))
  for path in sorted((shared_data / 'photos').iterdir())[:20]:
    data = path.read_bytes()
    rgb, planes = np.zeros((64, 64, 3), np.uint8), np.zeros(sender.shape, np.uint8)
    augment.evaluate(data, preprocessing, rgb)
    augment.EvaluationTransform(preprocessing, sender)(data, planes)
    difference = np.abs(np.asarray(transform(rgb[None])) - np.asarray(transform(planes[None])))
    assert difference.max() < 8 and difference.mean() < 0.6
