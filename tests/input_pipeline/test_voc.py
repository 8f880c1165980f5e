"""Folders in the layout of Pascal VOC."""
import pytest

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.sources.voc import CLASSES, open_voc
from tests.helpers.coco_sets import write_images

OBJECT = ('<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}'
          '</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>')


def write(root, stem, *objects, size=(40, 60)):
  (root / 'Annotations').mkdir(parents=True, exist_ok=True)
  text = ''.join(OBJECT.format(name=name, difficult=difficult, box=box)
                 for name, box, difficult in objects)
  (root / 'Annotations' / f'{stem}.xml').write_text(
      f'<annotation><filename>{stem}.jpg</filename><size><width>{size[1]}</width><height>{size[0]}'
      f'</height><depth>3</depth></size>{text}</annotation>')
  write_images(root / 'JPEGImages', {f'{stem}.jpg': size})


def test_records_and_ground_truth(tmp_path):
  write(tmp_path, '1', ('dog', (1, 1, 60, 40), 0), ('cat', (11, 6, 30, 25), 1))
  write(tmp_path, '2', ('dog', (5, 5, 4, 9), 0))
  source = open_voc(tmp_path)
  assert source.class_names == list(CLASSES) and len(source) == 2
  record = source.record(0)
  assert record.boxes.tolist() == [[0, 0, 60, 40], [10, 5, 30, 25]]
  assert record.labels.tolist() == [CLASSES.index('dog'), CLASSES.index('cat')]
  assert record.crowd.tolist() == [False, True] and record.areas.tolist() == [2400, 400]
  # 5..4 counts pixels from 1 and includes the last: nothing is left.
  assert source.notes == ('boxes of no area, left out: 1 (2.jpg)',)
  truth = source.ground_truth()
  assert [a['bbox'] for a in truth['annotations']] == [[0, 0, 60, 40], [10, 5, 20, 20]]
  assert [a['iscrowd'] for a in truth['annotations']] == [0, 1]
  assert len(source.for_training()) == 1


def test_splits_and_own_classes(tmp_path):
  write(tmp_path, '1', ('tram', (1, 1, 9, 9), 0))
  write(tmp_path, '2', ('bus', (1, 1, 9, 9), 0))
  sets = tmp_path / 'ImageSets' / 'Main'
  sets.mkdir(parents=True)
  (sets / 'val.txt').write_text('2\n')
  assert open_voc(tmp_path).class_names == ['bus', 'tram']
  source = open_voc(tmp_path, 'val', class_names=['bus', 'tram'])
  assert [source.name(i) for i in range(len(source))] == ['2.jpg']
  with pytest.raises(NotFoundError, match='splits there are val'):
    open_voc(tmp_path, 'test')
  with pytest.raises(UserError, match='classes that the training set lacks: tram'):
    open_voc(tmp_path, class_names=['bus'])


def test_damaged_files(tmp_path):
  write(tmp_path, '1', ('dog', (1, 1, 9, 9), 0), ('dog', ('x', 1, 9, 9), 0))
  write(tmp_path, '2', ('dog', (1, 1, 9, 9), 0))
  path = tmp_path / 'Annotations' / '2.xml'
  path.write_text(path.read_text()[:60])
  source = open_voc(tmp_path, max_missing_fraction=0.5)
  assert len(source) == 1 and len(source.record(0).labels) == 1
  assert [note.split(',')[0] for note in source.notes] == [
      'objects without a name or a box of four numbers',
      'annotation files that are damaged or cut short']
  assert '2.xml: ' in source.notes[1]
  with pytest.raises(UserError, match='1 of 2 annotation files'):
    open_voc(tmp_path)
  with pytest.raises(NotFoundError, match='has no folder Annotations'):
    open_voc(tmp_path / 'JPEGImages')
