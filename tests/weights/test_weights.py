"""PyTorch weights in, safetensors files in and out."""
import json
import pickle
import re
import sys
import types

import jax
import numpy as np
import pytest

import fcajax
from fcajax.cli import main as cli
from fcajax.errors import UserError
from fcajax.inference.load import load_model
from fcajax.models.backbones.resnet import ResNet
from fcajax.weights import from_torch, load_safetensors, save_safetensors
from fcajax.weights.torch.from_torch import MismatchError, clean_state
from tests.helpers.torch_names import SMALL, describe, torch_names

TINY = ResNet((1, 2), width=8, num_classes=3, attention='se', attention_options={'reduction': 4})


def test_fcanet34_gives_the_published_logits(data_dir, monkeypatch):
  monkeypatch.syspath_prepend(data_dir)
  import draw_weights
  files = [str(data_dir / 'fca.json'), str(data_dir / 'fca.npz'), 'fcanet34']
  model = fcajax.create_model('fca_resnet34')
  variables = from_torch(draw_weights.torch_state(*files), model)
  apply = jax.jit(lambda x: model.apply(variables, x, train=False))
  stored = np.load(files[1])
  for offset, name in ((0, 'logits'), (1000, 'logits_seed_plus_1000')):
    logits = apply(draw_weights.model_input(files[0], 'fcanet34', offset))
    wanted = stored[f'fcanet34/{name}']
    assert np.abs(logits - wanted).max() < 1e-3 * wanted.std()


def test_layouts_names_and_leaves():
  state = torch_names(TINY)
  variables = from_torch(state, TINY)
  params, stats = variables['params'], variables['batch_stats']
  np.testing.assert_array_equal(
      params['stage2']['block1']['conv2']['kernel'],
      state['layer2.1.conv2.weight'].transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(params['head']['kernel'], state['fc.weight'].T)
  np.testing.assert_array_equal(
      params['stage1']['block0']['attention']['expand']['kernel'],
      state['layer1.0.att.fc.2.weight'].T)
  np.testing.assert_array_equal(
      stats['stage2']['block0']['shortcut_norm']['var'],
      state['layer2.0.downsample.1.running_var'])
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize('wrap', [
    lambda state: {f'module.{k}': v for k, v in state.items()},
    lambda state: {'state_dict': state, 'epoch': np.array(3)},
    lambda state: {'model': {f'module.{k}': v for k, v in state.items()}, 'optimizer': {}},
    lambda state: {**state, 'layer1.0.att.dct_layer.weight': np.zeros((32, 8, 8))},
    lambda state: {k.replace('.att.fc.0.', '.se.fc1.').replace('.att.fc.2.', '.se.fc2.'):
                   v[..., None, None] if '.att.fc' in k else v for k, v in state.items()},
], ids=['module', 'state_dict', 'model and module', 'dct buffer', 'timm'])
def test_spellings_and_wrappers(wrap):
  state = torch_names(TINY)
  want, got = from_torch(state, TINY), from_torch(wrap(state), TINY)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_every_difference_is_in_one_error():
  state = torch_names(TINY)
  del state['layer2.1.conv2.weight'], state['bn1.running_mean']
  state['fc.weight'] = np.zeros((7, 64), np.float32)
  state['layer1.0.conv1.weight'] = np.zeros((8, 8, 3, 3), np.float32)
  state['layer9.0.conv1.weight'] = state['aux.weight'] = np.zeros(3, np.float32)
  with pytest.raises(MismatchError) as caught:
    from_torch(state, TINY)
  message = str(caught.value)
  for text in ('2 keys of the checkpoint that the network does not have',
               'layer9.0.conv1.weight [3]',
               'aux.weight [3]', '2 shapes that differ', 'fc.weight [7, 64] -> params/head/kernel',
               'layer1.0.conv1.weight [8, 8, 3, 3]', '2 parameters of the network without a key',
               'params/stage2/block1/conv2/kernel [3, 3, 16, 16]', 'batch_stats/stem_norm/mean'):
    assert text in message, message


def test_learned_basis_is_imported():
  model = ResNet((1,), width=16, num_classes=2, block='basic', stem='none', attention='fca',
                 attention_options={'learnable': True, 'frequencies': 'top2'})
  shape = (1, 8, 8, 16)
  basis = np.random.default_rng(0).standard_normal((16, 8, 8)).astype(np.float32)
  plain = model.clone(attention_options={'frequencies': 'top2'})
  state = torch_names(plain, shape) | {'layer1.0.att.dct_layer.weight': basis}
  params = from_torch(state, model, input_shape=shape)['params']
  np.testing.assert_array_equal(
      params['stage1']['block0']['attention']['basis'], basis.transpose(1, 2, 0))


@pytest.mark.parametrize('checkpoint, message', [
    ([1, 2], 'holds a list, not tensors by name'),
    ({'epoch': 3, 'note': 'x'}, r"a dict with the keys \['epoch', 'note'\]"),
    ({'state_dict': {}}, 'is no state dict'),
])
def test_no_state_dict(checkpoint, message):
  with pytest.raises(ValueError, match=message):
    clean_state(checkpoint)


def test_unknown_network_class():
  from flax import linen as nn
  with pytest.raises(ValueError, match='no PyTorch names are known for Dense'):
    from_torch({'weight': np.zeros(3)}, nn.Dense(3))


@pytest.fixture
def small(tmp_path):
  """A safetensors file of PyTorch weights for `SMALL` with four classes, and its state."""
  from safetensors.numpy import save_file
  state = torch_names(fcajax.create_model(SMALL, num_classes=4))
  save_file(state, tmp_path / 'torch.safetensors')
  return tmp_path, state


def test_convert_and_load_model(small, capsys):
  folder, state = small
  (folder / 'names.txt').write_text('rose\ntulip\n\ndaisy\nlily\n')
  source, target = str(folder / 'torch.safetensors'), str(folder / 'out.safetensors')
  assert cli.main(['convert', source, target, '--model', SMALL, '--class-names',
                   str(folder / 'names.txt'), '--mean', '.5', '.5', '.5']) == 0
  assert '4 classes' in capsys.readouterr().out
  model, variables, metadata = fcajax.load_model(target)
  assert model == fcajax.create_model(SMALL, num_classes=4)
  assert metadata['class_names'] == ['rose', 'tulip', 'daisy', 'lily']
  assert metadata['preprocessing']['image_size'] == 32
  assert metadata['preprocessing']['mean'] == [.5, .5, .5]
  assert metadata['model'] == {'name': SMALL, 'num_classes': 4, 'overrides': {}}
  jax.tree.map(np.testing.assert_array_equal, variables, from_torch(state, model))
  assert not list(folder.glob('*.partial'))


def test_convert_keeps_overrides(tmp_path):
  from safetensors.numpy import save_file
  model = fcajax.create_model(SMALL, num_classes=2, attention='se', reduction=8, use_bias=True)
  save_file(torch_names(model), tmp_path / 'in.safetensors')
  target = str(tmp_path / 'out.safetensors')
  assert cli.main(['convert', str(tmp_path / 'in.safetensors'), target, '--model',
                   'se_resnet20']) == 0
  loaded, _, metadata = load_model(target)
  assert metadata['model']['overrides'] == {'reduction': 8, 'use_bias': True}
  assert dict(loaded.attention_options) == {'reduction': 8, 'use_bias': True}


@pytest.mark.parametrize('arguments, message', [
    (['--model', 'resnet56'], 'as resnet56: the checkpoint does not fit'),
    (['--model', 'resnet21'], "unknown model 'resnet21': did you mean 'resnet20'"),
    (['--model', SMALL, '--num-classes', '7'], r'fc.weight \[4, 64\] -> params/head/kernel'),
    (['--model', SMALL, '--set', 'widht=3'], "did you mean 'width'"),
    (['--model', SMALL, '--set', 'width'], 'must be KEY=VALUE'),
    (['--model', SMALL, '--class-names', 'NAMES'], 'names 2 classes, the network has 4'),
    (['--model', SMALL, '--class-names', 'NAMES.json'], 'JSON list of strings'),
])
def test_convert_refuses_and_writes_nothing(small, arguments, message, capsys):
  folder, _ = small
  (folder / 'NAMES').write_text('one\ntwo\n')
  (folder / 'NAMES.json').write_text('{"0": "one"}')
  arguments = [str(folder / a) if a.startswith('NAMES') else a for a in arguments]
  target = folder / 'out.safetensors'
  assert cli.main(['convert', str(folder / 'torch.safetensors'), str(target), *arguments]) == 2
  assert re.search(message, capsys.readouterr().err)
  assert not target.exists()


def test_convert_needs_an_output_and_an_input_it_can_use(small, capsys):
  folder, _ = small
  source = str(folder / 'torch.safetensors')
  for words, message in (
      ([source, str(folder / 'out.bin')], 'must end in .safetensors'),
      ([str(folder / 'absent.pth'), str(folder / 'out.safetensors')], 'no such checkpoint')):
    assert cli.main(['convert', *words, '--model', SMALL]) == 2
    assert message in capsys.readouterr().err


def test_safetensors_keep_values_dtypes_and_metadata(tmp_path):
  variables = {'params': {'a': {'b': np.arange(6, dtype=np.float32).reshape(2, 3)}},
               'batch_stats': {'c': np.ones(2, np.float32)}}
  path = tmp_path / 'w.safetensors'
  save_safetensors(path, variables, describe())
  loaded, metadata = load_safetensors(path)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)
  assert metadata == describe()


@pytest.mark.parametrize('damage, message', [
    (lambda blob: blob[:-40], 'cut short'),
    (lambda blob: blob[:5], 'cut short'),
    (lambda blob: b'', 'cut short'),
    (lambda blob: b'hello world, this is text', 'no safetensors file'),
], ids=['end', 'header', 'empty', 'text'])
def test_damaged_files_are_named(small, damage, message, capsys):
  folder, _ = small
  whole = folder / 'whole.safetensors'
  save_safetensors(whole, {'params': {'a': np.zeros(100, np.float32)}}, describe())
  broken = folder / 'broken.safetensors'
  broken.write_bytes(damage(whole.read_bytes()))
  with pytest.raises(ValueError, match=f'broken.safetensors.*{message}'):
    load_model(broken)
  assert cli.main(['convert', str(broken), str(folder / 'o.safetensors'), '--model', SMALL]) == 2
  assert 'broken.safetensors' in capsys.readouterr().err


def test_files_of_another_kind(small):
  from safetensors.numpy import save_file
  folder, _ = small
  with pytest.raises(ValueError, match='fcajax convert'):
    load_model(folder / 'torch.safetensors')
  with pytest.raises(FileNotFoundError, match=r'absent\.safetensors'):
    load_model(folder / 'absent.safetensors')
  array = {'params/a': np.zeros(2, np.float32)}
  for text in ('{"model": ', '[]', json.dumps({'model': {}})):
    save_file(array, folder / 'odd.safetensors', metadata={'fcajax': text})
    with pytest.raises(ValueError, match=r'odd\.safetensors'):
      load_model(folder / 'odd.safetensors')
  save_safetensors(folder / 'mine.safetensors', {'params': {}}, describe())
  assert cli.main(['convert', str(folder / 'mine.safetensors'), str(folder / 'o.safetensors'),
                   '--model', SMALL]) == 2
  save_safetensors(folder / 'odd.safetensors', {'params': {}}, describe('resnet999'))
  with pytest.raises(ValueError, match='unknown model'):
    load_model(folder / 'odd.safetensors')


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'w.safetensors'
  save_safetensors(path, {'params': {'a': np.zeros(2, np.float32)}}, describe())
  before = path.read_bytes()

  def full(self, data):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr('pathlib.Path.write_bytes', full)
  with pytest.raises(UserError, match=r"cannot write '.*w\.safetensors': No space"):
    save_safetensors(path, {'params': {'a': np.ones(2, np.float32)}}, describe())
  assert path.read_bytes() == before


def test_load_model_from_a_work_directory(tmp_path):
  from fcajax.workdir.checkpoints import Checkpoints
  model = fcajax.create_model(SMALL, num_classes=4)
  early, late = (from_torch(torch_names(model, seed=seed), model) for seed in (1, 2))
  metadata = describe()
  (tmp_path / 'metadata.json').write_text(json.dumps(metadata))
  with Checkpoints(tmp_path) as checkpoints:
    for step, variables, accuracy in ((1, early, 0.9), (2, late, 0.4)):
      state = types.SimpleNamespace(
          step=np.array(step), rng=np.zeros(2, np.uint32), opt_state={}, ema={}, **variables)
      checkpoints.save(step, state, iterator='{}', run={}, metadata=metadata,
                       metrics={'accuracy': accuracy})
    checkpoints.wait()
  for step, wanted in (('best', early), ('latest', late), (2, late)):
    loaded, variables, found = load_model(tmp_path, step)
    assert (loaded, found) == (model, metadata)
    jax.tree.map(np.testing.assert_array_equal, variables, wanted)
  with pytest.raises(ValueError, match='no checkpoint of step 7'):
    load_model(tmp_path, 7)
  (tmp_path / 'metadata.json').write_text('{"class_names": []}')
  with pytest.raises(ValueError, match=r'lacks model, preprocessing, model\.name'):
    load_model(tmp_path)
  for name, value in (('model', 3), ('class_names', 5), ('preprocessing', [])):
    (tmp_path / 'metadata.json').write_text(json.dumps(metadata | {name: value}))
    with pytest.raises(UserError, match=r'lacks model\.name|is damaged: .* of a wrong type'):
      load_model(tmp_path)
  (tmp_path / 'metadata.json').unlink()
  with pytest.raises(UserError, match='only checkpoints; start its run again'):
    load_model(tmp_path)
  with pytest.raises(ValueError, match='no work directory'):
    load_model(tmp_path / 'checkpoints')


class Runs:
  """A pickle of this runs code when it is loaded."""

  def __reduce__(self):
    return print, ('loaded',)


class TestPth:
  """`.pth` files, which PyTorch alone reads."""

  @pytest.fixture(autouse=True)
  def torch(self):
    return pytest.importorskip('torch', reason='needs PyTorch: pip install -e .[torch]')

  def convert(self, path):
    return cli.main(['convert', str(path), str(path.parent / 'out.safetensors'), '--model', SMALL])

  def test_wrapped_half_precision(self, small, torch):
    folder, state = small
    tensors = {f'module.{k}': torch.from_numpy(v.copy()).to(torch.bfloat16)
               if v.dtype == np.float32 else torch.from_numpy(v) for k, v in state.items()}
    torch.save({'state_dict': tensors, 'epoch': 3}, folder / 'a.pth')
    assert self.convert(folder / 'a.pth') == 0
    _, variables, _ = load_model(folder / 'out.safetensors')
    np.testing.assert_allclose(
        variables['params']['head']['kernel'], state['fc.weight'].T, rtol=1e-2)
    assert variables['params']['head']['kernel'].dtype == np.float32

  def test_code_is_refused(self, tmp_path, torch, capsys):
    torch.save({'state_dict': Runs()}, tmp_path / 'evil.pth')
    assert self.convert(tmp_path / 'evil.pth') == 2
    streams = capsys.readouterr()
    assert 'would run code' in streams.err and 'loaded' not in streams.out

  @pytest.mark.parametrize('content', [
      b'', b'no checkpoint', pickle.dumps([1, 2], 2), pickle.dumps({'a': 1}, 2)[:-3]],
                           ids=['empty', 'text', 'list', 'truncated'])
  def test_no_checkpoint(self, tmp_path, content, capsys):
    (tmp_path / 'odd.pth').write_bytes(content)
    assert self.convert(tmp_path / 'odd.pth') == 2
    error = capsys.readouterr().err
    assert 'odd.pth' in error and 'Traceback' not in error

  def test_truncated(self, small, torch, capsys):
    folder, state = small
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, folder / 'a.pth')
    blob = (folder / 'a.pth').read_bytes()
    for end in (len(blob) // 2, 100):
      (folder / 'a.pth').write_bytes(blob[:end])
      assert self.convert(folder / 'a.pth') == 2
      assert 'cut short' in capsys.readouterr().err

  def test_a_bare_pickle_cut_anywhere(self, tmp_path):
    from fcajax.weights.torch.checkpoint_file import read_checkpoint
    blob = pickle.dumps({'a': [1, 2.5], 'b': {'name': 'text', 'flag': True}}, 2)
    for end in range(len(blob)):
      (tmp_path / 'a.pth').write_bytes(blob[:end])
      with pytest.raises(ValueError, match=r'a\.pth.*cut short'):
        read_checkpoint(tmp_path / 'a.pth')

  def test_without_torch(self, small, torch, monkeypatch):
    from fcajax.weights.torch.checkpoint_file import read_checkpoint
    folder, _ = small
    (folder / 'a.pth').write_bytes(b'x')
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ValueError, match='pip install'):
      read_checkpoint(folder / 'a.pth')
