"""The command line: choosing a command, listing, predicting and exporting."""
import json

import cv2
import jax
import numpy as np
import pytest

from fcajax.cli import main as cli
from fcajax.inference.load import load_model
from fcajax.inference.predict import probabilities_function
from fcajax.inference.read_images import find_images
from fcajax.models.registry import create_model
from fcajax.preprocessing.spec import Preprocessing
from fcajax.weights import save_safetensors


@pytest.fixture(scope='module')
def weights_file(tmp_path_factory):
  """A ResNet-20 of three classes with weights as initialised."""
  path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
  model = create_model('resnet20', num_classes=3)
  variables = jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3))))()
  metadata = {
      'model': {'name': 'resnet20', 'num_classes': 3, 'overrides': {}},
      'class_names': ['cat', 'dog', 'owl'],
      'preprocessing': Preprocessing(image_size=32, resize_size=32).to_dict(),
  }
  save_safetensors(path, jax.device_get(variables), metadata)
  return path


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pictures')
  generator = np.random.default_rng(0)
  for name, shape in (('a.png', (40, 60, 3)), ('b.jpg', (33, 32, 3)), ('c.png', (50, 50))):
    cv2.imwrite(str(folder / name), generator.integers(0, 256, shape).astype(np.uint8))
  (folder / 'notes.txt').write_text('no image')
  return folder


def test_unknown_command_names_the_nearest(capsys):
  assert cli.main(['predcit']) == 2
  assert "did you mean 'predict'" in capsys.readouterr().err


def test_list_takes_a_pattern(capsys):
  assert cli.main(['list', 'fca_resnet*']) == 0
  names = capsys.readouterr().out.split()
  assert 'fca_resnet50' in names and all(name.startswith('fca_resnet') for name in names)


def test_list_without_a_match_fails(capsys):
  assert cli.main(['list', 'vgg*']) == 2
  assert 'vgg*' in capsys.readouterr().err


def test_find_images_reads_folders_and_refuses_what_is_missing(pictures, tmp_path):
  assert [p.name for p in find_images([pictures])] == ['a.png', 'b.jpg', 'c.png']
  with pytest.raises(FileNotFoundError, match=r'missing\.png'):
    find_images([tmp_path / 'missing.png'])
  with pytest.raises(ValueError, match='no image in'):
    find_images([tmp_path])


def test_find_images_takes_what_training_takes_and_skips_hidden_files(tmp_path):
  (tmp_path / '.hidden').mkdir()
  for name in ('a.ppm', 'b.JPG', '._b.JPG', '.hidden/c.png'):
    (tmp_path / name).touch()
  assert [p.name for p in find_images([tmp_path])] == ['a.ppm', 'b.JPG']


def test_predict_leaves_out_broken_files_of_a_folder(weights_file, pictures, tmp_path, capsys):
  for name in ('a.png', 'c.png'):
    (tmp_path / name).write_bytes((pictures / name).read_bytes())
  for name in ('a0.jpg', 'b.jpg'):
    (tmp_path / name).write_text('this is text')
  assert cli.main(['predict', str(weights_file), str(tmp_path), '--batch-size', '2']) == 0
  streams = capsys.readouterr()
  assert [line.split(':')[0][-5:] for line in streams.out.splitlines()] == ['a.png', 'c.png']
  assert 'a0.jpg' in streams.err and 'b.jpg' in streams.err
  assert cli.main(['predict', str(weights_file), str(tmp_path), str(tmp_path / 'b.jpg')]) == 2
  for name in ('a.png', 'c.png'):
    (tmp_path / name).unlink()
  capsys.readouterr()
  assert cli.main(['predict', str(weights_file), str(tmp_path)]) == 2
  assert 'none of the 2 image files can be read' in capsys.readouterr().err


def test_predict_names_the_classes(weights_file, pictures, capsys):
  arguments = ['predict', str(weights_file), str(pictures), '--top', '2', '--json']
  assert cli.main([*arguments, '--batch-size', '2']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [line['image'].rsplit('/', 1)[-1] for line in lines] == ['a.png', 'b.jpg', 'c.png']
  for line in lines:
    (first, p), (second, q) = line['top']
    assert {first, second} <= {'cat', 'dog', 'owl'} and 1 >= p >= q >= 0
  # The filled-up last group gives the same as one group of three.
  assert cli.main([*arguments, '--batch-size', '3']) == 0
  again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  for one, other in zip(lines, again):
    assert one['top'][0][0] == other['top'][0][0]
    assert one['top'][0][1] == pytest.approx(other['top'][0][1], abs=1e-4)


def test_predict_names_a_broken_image(weights_file, tmp_path, capsys):
  broken = tmp_path / 'broken.jpg'
  broken.write_text('this is text')
  assert cli.main(['predict', str(weights_file), str(broken)]) == 2
  assert 'broken.jpg' in capsys.readouterr().err


def test_predict_without_a_model(tmp_path, pictures, capsys):
  assert cli.main(['predict', str(tmp_path / 'no_run'), str(pictures)]) == 2
  assert 'no_run' in capsys.readouterr().err


def test_truncated_weights_are_refused(weights_file, tmp_path, capsys, pictures):
  cut = tmp_path / 'cut.safetensors'
  cut.write_bytes(weights_file.read_bytes()[:-1000])
  assert cli.main(['predict', str(cut), str(pictures)]) == 2
  assert 'cut short' in capsys.readouterr().err


def test_export_stablehlo_gives_the_same_probabilities(weights_file, tmp_path, capsys):
  from jax import export

  output = tmp_path / 'small.stablehlo'
  assert cli.main(['export', str(weights_file), str(output)]) == 0
  call = export.deserialize(bytearray(output.read_bytes())).call
  model, variables, metadata = load_model(weights_file)
  function = probabilities_function(
      model, Preprocessing.from_dict(metadata['preprocessing']))
  generator = np.random.default_rng(1)
  for count in (1, 3):
    images = generator.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_allclose(call(images), jax.jit(function)(variables, images), atol=1e-5)


def test_export_refuses_other_names(weights_file, tmp_path, capsys):
  assert cli.main(['export', str(weights_file), str(tmp_path / 'small.onnx')]) == 2
  assert '.stablehlo' in capsys.readouterr().err
  assert cli.main(['export', str(weights_file), str(tmp_path / 'a' / 'b.stablehlo')]) == 2
  assert 'does not exist' in capsys.readouterr().err


def test_plot_curves_draws_runs_and_refuses_other_folders(tmp_path, capsys):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    rows = [{'step': int(2 * e), 'epoch': e, 'split': s, 'loss': 2.0 - e, 'accuracy': e / 2}
            for e in (0.5, 1.0) for s in ('train', 'evaluation')]
    (tmp_path / name / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
  runs, out = [str(tmp_path / 'a'), str(tmp_path / 'b')], tmp_path / 'curves.png'
  assert cli.main(['plot', 'curves', *runs, '--out', str(out)]) == 0
  assert cv2.imread(str(out)).shape[1] > 1000
  assert cli.main(['plot', 'curves', *runs, '--labels', 'one', '--out', str(out)]) == 2
  assert 'one each' in capsys.readouterr().err
  assert cli.main(['plot', 'curves', str(tmp_path), '--out', str(out)]) == 2
  assert 'metrics.jsonl' in capsys.readouterr().err
