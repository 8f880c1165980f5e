"""Every config: it documents its command, fits the models and the data, and can be shrunk."""
import importlib
import pathlib
import re

import jax
import pytest

from configs import common
from fcajax.layers.attention import ATTENTIONS
from fcajax.models import registry
from fcajax.models.options import attention_fields, field_names
from fcajax.preprocess import Preprocessing, device_transform
from fcajax.train import build
from input_pipeline.settings import DataSettings

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted({path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__', 'common'})


def load(name):
  return importlib.import_module(f'configs.{name}')


def arguments(module):
  return ['', *getattr(module, 'VARIANTS', ()), 'smoke']


@pytest.mark.parametrize('name', NAMES)
def test_config_is_complete_and_documented(name):
  module = load(name)
  assert f'python train.py --config configs/{name}.py' in module.__doc__
  for argument in arguments(module):
    config = module.get_config(argument).lock()
    assert set(config.keys()) >= set(common.get_config().keys())
    build.check_config(config)
    DataSettings.from_config(config.data)


@pytest.mark.parametrize('name', NAMES)
def test_smoke_shrinks_and_other_words_are_refused(name):
  module = load(name)
  small, full = module.get_config('smoke'), module.get_config()
  assert small.num_steps <= 20 and small.batch_size <= full.batch_size
  with pytest.raises(ValueError, match='did you mean smoke'):
    module.get_config('smke')


@pytest.mark.parametrize('name', [
    'quickstart', 'folder', 'cifar10', 'imagenette', 'imagenet_resnet', 'imagenet_fcanet',
    'imagenet_ffc', 'imagenette_ffc', 'frequency_search'])
def test_networks_take_the_images_of_their_config(name):
  """Shapes alone: an image that is smaller than the DCT basis of a stage is an error."""
  for argument in ('', 'smoke'):
    config = load(name).get_config(argument)
    size = config.data.image_size
    transform = device_transform(Preprocessing(image_size=size))
    images = jax.ShapeDtypeStruct((1, size, size, 3), 'uint8')
    model = build.create_model(config, num_classes=10)
    logits = jax.eval_shape(
        lambda x, m=model, t=transform: m.init_with_output(jax.random.key(0), t(x))[0], images)
    assert logits.shape == (1, 10)


def test_commands_in_the_docstrings_name_what_exists():
  for name in NAMES:
    for file, argument in re.findall(r'configs/(\w+)\.py(?::([\w.,]+))?', load(name).__doc__):
      load(file).get_config(argument.rstrip('.,'))


def test_fcanet_recipe_is_the_published_one(facts):
  recipe = facts['fcanet']['recipe']
  config = load('imagenet_fcanet').get_config('101')
  optimizer, data = config.optimizer, config.data
  assert config.model.name == 'fca_resnet101'
  assert 'momentum 0.9, no Nesterov' in recipe
  assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ('sgd', 0.9, False)
  assert 'weight decay 1e-4 on all parameters' in recipe
  assert (optimizer.weight_decay, optimizer.decay_mask) == (1e-4, 'all')
  assert 'lr 0.1 per 256 images' in recipe
  assert (optimizer.learning_rate, optimizer.learning_rate_batch) == (0.1, 256)
  assert '5 warm-up epochs then cosine to 0, 100 epochs' in recipe
  assert (optimizer.warmup_epochs, optimizer.schedule, config.num_epochs) == (5, 'cosine', 100)
  assert 'label smoothing 0.1' in recipe and config.label_smoothing == 0.1
  assert 'crop area 0.1-1 aspect 0.8-1.25, flip' in recipe
  assert (data.crop_area, data.crop_ratio, data.flip) == ((0.1, 1.0), (0.8, 1.25), True)
  assert 'test resize 256 crop 224' in recipe and (data.resize_size, data.image_size) == (256, 224)
  assert 'no EMA' in recipe and config.ema_decay == 0


def test_published_accuracies_are_quoted_right(facts):
  text = load('imagenet_fcanet').__doc__
  for name, row in facts['fcanet']['paper_table2'].items():
    depth = name.removeprefix('fcanet')
    assert re.search(rf'^ +{depth} +{row[2]:.2f} +{row[3]:.2f}', text, re.MULTILINE)


def test_every_option_of_every_model_can_be_set():
  own = {'name', 'num_classes', 'dtype', 'param_dtype', 'norm', 'axis_name', 'kernel_init'}
  options = set()
  for variant in registry._variants().values():
    options |= set(field_names(variant))
  for attention in ATTENTIONS:
    options |= set(attention_fields(attention))
  assert options - own <= set(common.MODEL_KEYS)


def test_frequencies_of_a_search_are_stored_with_the_network(tmp_path):
  search = tmp_path / 'search.json'
  search.write_text('{"grid": [7, 7], "selected": [[0, 1], [2, 0]], "ranked": [[2, 0], [0, 1]]}')
  config = common.get_config()
  config.model.name = 'fca_resnet20'
  config.model.frequencies = str(search)
  described = build.model_description(config, None, 10)
  assert described['overrides'] == {'frequencies': ((0, 1), (2, 0))}
  config.model.frequencies = f'{search}:top1'
  assert build.model_overrides(config) == {'frequencies': ((2, 0),)}
  config.model.attention_options = {'frequencies': str(search)}
  config.model.frequencies = None
  assert build.model_overrides(config) == {'attention_options': {'frequencies': ((0, 1), (2, 0))}}
  config.model.attention_options = None
  config.model.frequencies = 'top8'
  assert build.model_overrides(config) == {'frequencies': 'top8'}


def test_coefficients_are_named_once():
  config = common.get_config()
  config.model.name = 'dct_resnet18'
  config.data.representation, config.data.coefficients = 'dct', '6S'
  assert build.model_overrides(config) == {'coefficients': '6S'}
  config.model.coefficients = '24S'
  with pytest.raises(ValueError, match=r'differs from config\.data\.coefficients'):
    build.model_overrides(config)


@pytest.mark.parametrize('change, message', [
    ({'model.name': 'fca_resnt50'}, "unknown model 'fca_resnt50'.*fca_resnet50"),
    ({'model.attention': 'fcb'}, "unknown attention 'fcb'.*fca"),
    ({'parallelism': 'ddp'}, 'use one of'),
    ({'dtype': 'float16'}, 'use one of'),
    ({'batch_size': 0}, 'batch_size=0 must be at least 1'),
    ({'num_epochs': 0.0}, 'num_epochs or config.num_steps'),
    ({'label_smoothing': 1.5}, 'label_smoothing=1.5 must be'),
    ({'freeze': '('}, 'not a regular expression'),
    ({'optimizer.name': 'adam'}, 'use one of'),
    ({'optimizer.schedule': 'linear'}, 'use one of'),
    ({'optimizer.accumulate_steps': 0}, 'at least 1'),
    ({'task': 'frequencysearch'}, "task='frequencysearch'; use one of"),
    ({'seed': -1}, 'seed=-1 must be at least 0'),
    ({'num_steps': -1}, 'num_steps=-1 must be at least 0'),
    ({'num_epochs': float('inf')}, 'num_epochs=inf must be'),
    ({'eval_every_epochs': float('nan')}, 'eval_every_epochs=nan must be above 0'),
    ({'checkpoint.every_epochs': 0.0}, r'checkpoint.every_epochs=0.0 must be above 0'),
    ({'checkpoint.keep': 0}, 'checkpoint.keep=0 must be at least 1'),
    ({'optimizer.learning_rate': -0.1}, 'learning_rate=-0.1 must be at least 0'),
    ({'optimizer.momentum': 1.5}, 'momentum=1.5 must be at least 0 and below 1'),
    ({'optimizer.clip_norm': -1.0}, 'clip_norm=-1.0 must be'),
    ({'optimizer.warmup_epochs': -1.0}, 'warmup_epochs=-1.0 must be'),
])
def test_values_that_cannot_work(change, message):
  config = common.get_config()
  config.update_from_flattened_dict(change)
  with pytest.raises(ValueError, match=message):
    build.check_config(config)
