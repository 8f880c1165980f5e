"""Every config: it documents its command, fits the models and the data, and can be shrunk."""
import ast
import dataclasses
import importlib
import pathlib
import re

import jax
import pytest
from ml_collections import ConfigDict

from fcajax.configs import common
from fcajax.configs.base import checks
from fcajax.configs.base.settings import OptimizerSettings
from fcajax.errors import UserError
from fcajax.input_pipeline.settings import DataSettings
from fcajax.models import registry
from fcajax.preprocessing.spec import Preprocessing, device_transform
from fcajax.tasks import network
from fcajax.train.plan import check_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted({path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__', 'common'})


def load(name):
  return importlib.import_module(f'fcajax.configs.{name}')


def arguments(module):
  return ['', *getattr(module, 'VARIANTS', ()), 'smoke']


@pytest.mark.parametrize('name', NAMES)
def test_config_is_complete_and_documented(name):
  module = load(name)
  assert f'python train.py --config configs/{name}.py' in module.__doc__
  for argument in arguments(module):
    config = module.get_config(argument).lock()
    assert set(config.keys()) >= set(common.get_config().keys())
    checks.check_config(config)
    check_config(config)


@pytest.mark.parametrize('name', NAMES)
def test_smoke_shrinks_and_other_words_are_refused(name):
  module = load(name)
  small, full = module.get_config('smoke'), module.get_config()
  assert small.num_steps <= 20 and small.batch_size <= full.batch_size
  with pytest.raises(ValueError, match="did you mean 'smoke'"):
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
    model = network.create_model(config, num_classes=10)
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
  config = common.get_config()
  for name in registry.list_models():
    keys = checks.known_keys(config, {'name': name})
    assert {'model.name', 'optimizer.boundaries', 'data.host_format', 'seed'} <= set(keys)
    assert {f'model.{key}' for key in registry.option_names(name)} - set(keys) == {
        f'model.{key}' for key in ('num_classes', 'dtype', 'axis_name')
        if key in registry.option_names(name)}
  assert 'model.reduction' not in checks.known_keys(config)
  assert 'model.reduction' in checks.known_keys(config, {'attention': 'se'})


def test_a_default_is_written_once():
  config = common.get_config()
  assert config.data.to_dict() == dataclasses.asdict(DataSettings())
  assert config.optimizer.to_dict() == dataclasses.asdict(OptimizerSettings())
  tree = common.settings_tree(DataSettings, source='tfds', image_size=(32, 64))
  assert (tree.source, tree.image_size) == ('tfds', (32, 64))
  with pytest.raises(UserError, match="no field 'rot'; did you mean 'root'"):
    common.settings_tree(DataSettings, rot='.')


@pytest.mark.parametrize('key, value, message', [
    ('model.width', 'abc', "config.model.width='abc' must be a whole number"),
    ('model.widht', 32, 'config.model.widht: resnet50 has no such field; did you mean'),
    ('model.gate', True, 'config.model.gate: resnet50 has no such field'),
    ('model.reduction', 4, "reduction: resnet50 has no such field; it belongs to attention='se'"),
    ('model.attention_options', 5, 'config.model.attention_options=5 must be a dictionary'),
    ('model.stage_sizes', (1, 'a'), 'config.model.stage_sizes=.* must be a tuple'),
    ('model.name', 'resnt50', "unknown model 'resnt50'.*resnet50"),
    ('optimizer.boundaries', 3, 'config.optimizer.boundaries=3 must be a tuple, each item a numb'),
    ('checkpoint.keep', 1.5, 'config.checkpoint.keep=1.5 must be a whole number'),
    ('seed', True, 'config.seed=True must be a whole number'),
    ('data.crop_area', (0.5, 0.1), r'data\.crop_area'),
    ('data.image_size', 'big', r"data\.image_size='big' must be"),
    ('data.in_memory', 'yes', r"data\.in_memory='yes'"),
    ('data.source', 'foldr', "did you mean 'folder'"),
    ('data.hostformat', 'rgb', "unknown key data.hostformat: did you mean 'host_format'")])
def test_values_and_keys_are_checked_before_any_work(key, value, message):
  config = ConfigDict(common.get_config().to_dict(), convert_dict=True, type_safe=False)
  place, name = key.split('.') if '.' in key else (None, key)
  (config[place] if place else config)[name] = value
  with pytest.raises(UserError, match=message):
    checks.check_config(config)


@pytest.mark.parametrize('name, keys', [
    ('fca_resnet50', {'reduction': 8, 'width': 32, 'attention_options': {'reduction': 4}}),
    ('dct_resnet18', {'coefficients': 192, 'gate': True, 'gate_temperature': (5.0, 1.0)}),
    ('mobilenet_v2', {'activation': 'silu', 'width': 1, 'dropout': 0.5})])
def test_fields_of_the_chosen_network_are_accepted(name, keys):
  config = common.get_config()
  config.model.update(keys, name=name)
  checks.check_config(config)
  network.create_model(config, num_classes=2)


def test_frequencies_of_a_search_are_stored_with_the_network(tmp_path):
  search = tmp_path / 'search.json'
  search.write_text('{"grid": [7, 7], "selected": [[0, 1], [2, 0]], "ranked": [[2, 0], [0, 1]]}')
  config = common.get_config()
  config.model.name = 'fca_resnet20'
  config.model.frequencies = str(search)
  described = network.model_description(config, None, {'num_classes': 10})
  assert described['overrides'] == {'frequencies': ((0, 1), (2, 0))}
  config.model.frequencies = f'{search}:top1'
  assert network.model_overrides(config) == {'frequencies': ((2, 0),)}
  config.model.attention_options = {'frequencies': str(search)}
  config.model.frequencies = None
  assert network.model_overrides(config) == {'attention_options': {'frequencies': ((0, 1), (2, 0))}}
  config.model.attention_options = None
  config.model.frequencies = 'top8'
  assert network.model_overrides(config) == {'frequencies': 'top8'}


def test_coefficients_are_named_once():
  config = common.get_config()
  config.model.name = 'dct_resnet18'
  config.data.representation, config.data.coefficients = 'dct', '6S'
  assert network.model_overrides(config) == {'coefficients': '6S'}
  config.model.coefficients = '24S'
  with pytest.raises(ValueError, match=r'differs from config\.data\.coefficients'):
    network.model_overrides(config)


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
    ({'task': 'frequencysearch'}, "task='frequencysearch' is unknown"),
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
    check_config(config)


def _named_keys(text):
  """The keys that a text names: config.KEY, `data.KEY`, and data.KEY=VALUE."""
  named = set(re.findall(r'\bconfig\.([a-z]\w*(?:\.[a-z]\w*)*)', text))
  return named | {f'data.{key}' for key in re.findall(
      r'(?<![\w./])data\.([a-z_]+)(?==[^=]|`)', text)}


def test_documented_keys_are_keys_of_a_config():
  known = set()
  for name in NAMES:
    for argument in arguments(load(name)):
      known.update(checks.known_keys(load(name).get_config(argument)))
  for name in registry.list_models():
    known |= {f'model.{key}' for key in registry.option_names(name)}
  for attention in ('fca', 'se', 'eca', 'cbam', 'gc'):
    known.update(checks.known_keys(common.get_config(), {'attention': attention}))
  assert _named_keys("`data.wire`, config.data.wire, data.wire='rgb'") - known == {'data.wire'}
  # Methods and attributes of configs and pipelines in code.
  code = {'data.data_set', 'lock', 'update', 'get', 'to_dict', 'unlocked', 'items', 'data.get',
          'data.update',
          'model.update', 'model.to_dict', 'copy_and_resolve_references', 'override_values'}
  pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
  modules = [path for folder in ('configs', 'input_pipeline', 'fcajax')
             for path in (ROOT / folder).rglob('*.py')]
  wrong = {}
  for path in pages + modules:
    text = path.read_text()
    if path.suffix == '.py':
      text = '\n'.join(node.value for node in ast.walk(ast.parse(text))
                       if isinstance(node, ast.Constant) and isinstance(node.value, str))
    missing = {key for key in _named_keys(text) - known - code
               if key not in ('py', 'json') and not key.endswith(('.py', '.json'))}
    if missing:
      wrong[str(path.relative_to(ROOT))] = sorted(missing)
  assert not wrong
