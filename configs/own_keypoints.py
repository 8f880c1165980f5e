"""Keypoints on a skeleton of your own: annotations in COCO's format, from a few hundred objects on.

    python train.py --config configs/own_keypoints.py --workdir runs/mine \
        --config.data.root=FOLDER --config.data.train_annotations=train.json \
        --config.data.train_images=train --config.data.eval_annotations=val.json \
        --config.data.eval_images=val

The names, the limbs and the number of joints come from the file's category; mirror pairs from names
that differ in left and right alone, or from data.flip_pairs. Without data.sigmas the share of
joints within 0.2 of the box (PCK) picks the best checkpoint. docs/keypoints.md has an example.
"""
from ml_collections import ConfigDict

from fcajax.configs import coco_keypoints, common


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; `arg` 'smoke' makes it a matter of seconds."""
  _, smoke = common.parse(arg)
  config = coco_keypoints.base_config('ffc_resnet18')
  config.num_epochs = 200.0
  config.batch_size = config.eval_batch_size = 32
  config.log_every_steps = 10
  config.eval_every_epochs = 20.0
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_epochs = 5.0
  config.data.train_annotations = 'train.json'
  config.data.train_images = 'train'
  config.data.eval_annotations = 'val.json'
  config.data.eval_images = 'val'
  # Small sets train on smaller crops; sigma follows the size.
  config.data.image_size = (128, 96)
  config.keypoints.sigma = 1.5
  return coco_keypoints.shrink(config) if smoke else config
