"""Persons with keypoints: what is read, what is left out, and how crops are made."""
import json

import numpy as np
import pytest

from fcajax.errors import NotFoundError, UserError
from fcajax.input_pipeline.augment import joints
from fcajax.input_pipeline.keypoints import (
  KeypointSettings,
  PersonExamples,
  load_data_set,
)
from fcajax.input_pipeline.sources.keypoints import AnnotatedPersons
from fcajax.preprocessing import person_crop
from fcajax.preprocessing.decode import decode_image
from fcajax.preprocessing.skeleton import COCO
from tests.helpers import pose

POINTS = [[30, 20, 2], [20, 25, 1], [40, 25, 2]]
BOX = [15, 10, 30, 40]


def slots(examples, count=1):
  spec = examples.spec(0)
  return [{name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
          for _ in range(count)]


def opened(tmp_path, persons, **category):
  return AnnotatedPersons(
      *pose.write(tmp_path, pose.annotations(persons, **category)), max_missing_fraction=0.5)


def test_the_persons_of_coco(shared_data, data_dir):
  root = shared_data / 'coco'
  source = AnnotatedPersons(root / 'annotations/person_keypoints_val.json', root / 'val')
  persons = source.persons(training=False)
  assert source.skeleton == COCO and len(persons) == 43
  centres, sizes = person_crop.crop_regions(persons.boxes, pose.SIZE)
  np.testing.assert_allclose(
      np.concatenate([centres, sizes / 200], 1),
      np.load(data_dir / 'pose_ops.npz')['boxes/center_scale_of_all_persons'], atol=1e-4)
  truth = source.truth()
  assert len(truth.areas) == 83 and truth.ignore.sum() == 2


def test_the_boxes_of_a_detector(shared_data):
  root = shared_data / 'coco_ap_h_56'
  source = AnnotatedPersons(root / 'annotations/person_keypoints_val.json', root / 'val')
  file = root / 'annotations/person_detections_val_AP_H_56.json'
  persons = source.detected(file)
  assert len(persons) == 118 and not persons.keypoints.any()
  assert (np.diff(persons.image) >= 0).all() and 0.0028 < persons.scores.min() < 0.003
  assert len(source.detected(file, min_score=0.5)) < 30


LEFT_OUT = [
    (pose.person(10, BOX, np.zeros((3, 3))),
     'persons without a labelled joint, left out: 1 (0.png'),
    (pose.person(10, [15, 10, 0, 40], POINTS), 'boxes of no area, left out: 1 (0.png'),
    (pose.person(10, BOX, POINTS, area=0), 'boxes of no area, left out: 1'),
    (pose.person(10, [100, 10, 30, 40], POINTS), 'boxes wholly outside their image, left out: 1'),
    (pose.person(10, BOX, POINTS[:2]), 'persons without 3 joints of x, y and visibility, left out'),
    ({**pose.person(10, BOX, POINTS), 'keypoints': [1, 2, 'x']},
     'persons without 3 joints'),
    (pose.person(10, BOX, [[np.nan, 1, 2], *POINTS[1:]]), 'persons without 3 joints'),
    ({**pose.person(10, BOX, POINTS), 'bbox': ['a', 1, 2, 3]},
     "persons without a 'bbox' of four finite"),
    (pose.person(77, BOX, POINTS),
     'annotations of an image that the file does not list, left out: 1 (image_id 77'),
]


@pytest.mark.parametrize('bad, message', LEFT_OUT)
def test_what_cannot_be_used_is_named_and_counted(tmp_path, bad, message):
  source = opened(tmp_path, [pose.person(11, BOX, POINTS), bad])
  persons = source.persons(training=True)
  assert len(persons) == 1 and persons.name(0).startswith('1.png, box 15 10')
  assert source.notes.lines()[0].startswith(message)
  assert 11 in np.array(persons.images.ids)[persons.image]


def test_crowds_count_in_the_truth_alone(tmp_path):
  crowd = pose.person(10, BOX, POINTS, iscrowd=1)
  source = opened(tmp_path, [pose.person(11, BOX, POINTS), crowd])
  assert len(source.persons(training=False)) == 1 and source.notes.lines() == ()
  assert source.truth().ignore.tolist() == [False, True]


def test_joints_outside_of_the_image(tmp_path):
  outside = [[81, 20, 2], [20, 61, 2], [40, 25, 2]]
  nothing = [[90, 20, 2], [0, 0, 0], [0, 0, 0]]
  source = opened(tmp_path, [pose.person(10, BOX, outside), pose.person(11, BOX, nothing)])
  assert len(source.persons(training=False)) == 2
  persons = source.persons(training=True)
  assert persons.keypoints[..., 2].tolist() == [[0, 0, 2]]
  assert source.notes.lines() == (
      'joints outside of their image, not labelled in training: 3 (0.png, 1.png)',)


def test_missing_images(tmp_path):
  content = pose.annotations([pose.person(10, BOX, POINTS), pose.person(11, BOX, POINTS)])
  path, folder = pose.write(tmp_path, content)
  (folder / '0.png').unlink()
  source = AnnotatedPersons(path, folder, max_missing_fraction=0.5)
  assert source.notes.lines() == ('images that do not exist, left out: 1 (0.png)',)
  assert len(source.persons(training=True)) == 1
  with pytest.raises(NotFoundError, match=r'1 of 2 images that .* 0\.png'):
    AnnotatedPersons(path, folder)


@pytest.mark.parametrize('change, message', [
    ({'categories': [{'id': 1, 'name': 'cat'}]}, "no category of .* has 'keypoints'"),
    ({'categories': [{'id': i, 'name': n, 'keypoints': ['a']} for i, n in enumerate('xy', 1)]},
     '2 categories with keypoints: x, y; choose one with data.category'),
    ({'images': [{'id': 1, 'file_name': '0.png'}]}, "without 'height', 'width'"),
    ({'categories': [{'id': 1, 'name': 'x', 'keypoints': 3}]},
     'keypoints=3 must be a list of names'),
    ({'categories': [{'id': 1, 'name': 'x', 'keypoints': ['a', 'b'], 'skeleton': [None, [1, 2]]}]},
     'must be a list of pairs of joints, counted from 1'),
    ({'annotations': []}, 'has no person to use: it has no annotations of the category'),
    ({'images': [{'id': [1], 'file_name': '0.png', 'height': 6, 'width': 8}]},
     "its 'id' must be a number or a text"),
])
def test_files_that_are_none(tmp_path, change, message):
  content = pose.annotations([pose.person(10, BOX, POINTS)]) | change
  with pytest.raises(UserError, match=message):
    AnnotatedPersons(*pose.write(tmp_path, content, images='images' not in change)).persons(
        training=True)


def test_values_of_wrong_types(tmp_path):
  """An area that is none counts as the box's; sizes and image ids that are none are left out."""
  content = pose.annotations([
      pose.person(10, BOX, POINTS, area=None), pose.person(10, BOX, POINTS, area='x'),
      pose.person(11, BOX, POINTS), pose.person([10], BOX, POINTS), pose.person({}, BOX, POINTS)])
  path, folder = pose.write(tmp_path, content)
  content['images'][0].update(height=60.0, width=80.0)
  for size in ('x', [], {}, -1, 1e308, float('nan'), 1.5):
    content['images'][1]['height'] = size
    path.write_text(json.dumps(content), encoding='utf-8-sig')  # with a byte order mark
    source = AnnotatedPersons(path, folder)
    assert len(source.persons(training=True)) == len(source.truth().areas) == 2
    assert source.truth().areas.tolist() == [1200, 1200]
    notes = '; '.join(source.notes.lines())
    assert 'a size that is none, left out: 1 (1.png' in notes and 'image_id [10]' in notes


@pytest.mark.parametrize('text, message', [
    ('{"a": 1}', 'is not a list of objects with image_id, bbox, score'),
    ('[{"image_id"', 'is not JSON, or is cut short'), ('[]', 'has no box of category 1')])
def test_detections_that_are_none(tmp_path, text, message):
  source = opened(tmp_path, [pose.person(10, BOX, POINTS)])
  (tmp_path / 'boxes.json').write_text(text)
  with pytest.raises(UserError, match=message):
    source.detected(tmp_path / 'boxes.json')
  with pytest.raises(NotFoundError, match=r'none\.json'):
    source.detected(tmp_path / 'none.json')


def test_a_crop_in_evaluation(tmp_path):
  persons = opened(tmp_path, [pose.person(10, BOX, POINTS)]).persons(training=False)
  examples = PersonExamples(persons, (64, 48), 1.25, ((1, 2),), joints.JointAugmentation())
  out, = slots(examples)
  examples.load(0, out, None)
  # x 15..44 and y 10..49 after the cut, widened to 3:4 and by 1.25.
  centre, width = np.array([29.5, 29.5]), 1.25 * 29.25
  expected = (np.array(POINTS)[:, :2] - centre) * (48 / width) + [24, 32]
  np.testing.assert_allclose(out['joints'], expected, atol=1e-4)
  assert out['visible'].tolist() == [1, 1, 1] and out['person'] == 0
  image = decode_image(tmp_path / '0.png')
  crop = np.zeros((64, 48, 3), np.uint8)
  person_crop.warp(image, person_crop.crop_matrix(centre, width, 0.0, (64, 48)), crop)
  np.testing.assert_array_equal(out['image'], crop)


def test_joints_stay_on_their_pixels_however_the_crop_is_changed(tmp_path):
  # A bright square on each joint is found where the changed joints say.
  content = pose.annotations([pose.person(10, BOX, POINTS)], images=1)
  path, folder = pose.write(tmp_path, content)
  from PIL import Image
  pixels = np.zeros((60, 80, 3), np.uint8)
  for channel, (x, y, _) in enumerate(POINTS):
    pixels[y - 1:y + 2, x - 1:x + 2, channel] = 255
  Image.fromarray(pixels).save(folder / '0.png')
  persons = AnnotatedPersons(path, folder).persons(training=True)
  changes = joints.JointAugmentation(rotation_probability=1)
  examples = PersonExamples(persons, (256, 192), 1.25, ((1, 2),), changes)
  mirrored = set()
  for seed in range(12):
    out, = slots(examples)
    generator = np.random.default_rng(seed)
    examples.load(0, out, generator)
    mirror = joints.draw(np.random.default_rng(seed), changes).mirror
    mirrored.add(mirror)
    for joint in range(3):
      channel = (0, 2, 1)[joint] if mirror else joint
      y, x = np.nonzero(out['image'][..., channel] > 127)
      np.testing.assert_allclose([x.mean(), y.mean()], out['joints'][joint], atol=1.0)
  assert mirrored == {True, False}


def test_the_random_numbers_have_the_published_distribution():
  draws = [joints.draw(np.random.default_rng(i), joints.JointAugmentation()) for i in range(4000)]
  factor = np.array([d.factor for d in draws])
  rotation = np.array([d.rotation for d in draws])
  assert factor.min() == pytest.approx(0.7) and factor.max() == pytest.approx(1.3)
  assert np.abs(rotation).max() == pytest.approx(80)
  assert (rotation != 0).mean() == pytest.approx(0.6, abs=0.03)
  assert np.mean([d.mirror for d in draws]) == pytest.approx(0.5, abs=0.03)
  assert rotation[rotation != 0].std() == pytest.approx(38.3, abs=2)  # 40, cut at 80


@pytest.mark.parametrize('values, message', [
    ({'scale': 1.5}, 'data.scale=1.5'), ({'rotation': -3.0}, 'data.rotation=-3'),
    ({'rotation_probability': 2.0}, 'data.rotation_probability=2'), ({'padding': 0.0}, 'padding'),
])
def test_settings_out_of_range(values, message):
  with pytest.raises(UserError, match=message):
    KeypointSettings(**values)


def settings(folder, **values):
  return KeypointSettings(
      root=str(folder), train_annotations='persons.json', train_images='.',
      eval_annotations='persons.json', eval_images='.', image_size=(64, 48), **values)


def test_a_data_set(tmp_path):
  pose.write(tmp_path, pose.annotations(
      [pose.person(10, BOX, POINTS), pose.person(11, BOX, np.zeros((3, 3)))], images=2,
      skeleton=[[1, 2], [1, 3]]))
  data = load_data_set(settings(tmp_path), 0)
  assert (len(data.train), len(data.evaluation)) == (1, 1)
  assert list(data.class_names) == list(pose.NAMES) and data.preprocessing.shape == (64, 48)
  assert data.persons.skeleton.limbs == ((0, 1), (0, 2))
  assert data.persons.skeleton.flip_pairs == ((1, 2),) and data.persons.labelled
  assert "'" in data.note and 'persons without a labelled joint, left out: 1' in data.note
  boxes = [{'image_id': 10, 'category_id': 1, 'bbox': BOX, 'score': 0.5},
           {'image_id': 11, 'category_id': 1, 'bbox': [0, 0, 0, 3], 'score': 0.5}]
  (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
  detected = load_data_set(settings(tmp_path, eval_boxes='boxes.json'), 0)
  assert not detected.persons.labelled and detected.persons.box_scores.tolist() == [0.5]
  assert 'detected boxes of no area, left out: 1 (1.png)' in detected.note


def test_splits_with_other_joints(tmp_path):
  pose.write(tmp_path, pose.annotations([pose.person(10, BOX, POINTS)]))
  other = pose.annotations([pose.person(10, BOX, POINTS)], names=('a', 'b', 'c'))
  pose.write(tmp_path, other, 'other.json', images=False)
  values = {**vars(settings(tmp_path)), 'eval_annotations': 'other.json'}
  with pytest.raises(UserError, match=r'nose, left_hand, right_hand\) are not those of .*other'):
    load_data_set(KeypointSettings(**values), 0)


def test_an_image_of_another_size_is_refused(tmp_path):
  content = pose.annotations([pose.person(10, BOX, POINTS)], images=1)
  path, folder = pose.write(tmp_path, content)
  content['images'][0]['height'] = 61
  path.write_text(json.dumps(content))
  persons = AnnotatedPersons(path, folder).persons(training=True)
  examples = PersonExamples(persons, (64, 48), 1.25, (), None)
  for generator in (None, np.random.default_rng(0)):
    with pytest.raises(UserError, match=r"'0\.png' is 60 x 80 pixels, its annotation says 61 x 80"):
      examples.load(0, slots(examples)[0], generator)
