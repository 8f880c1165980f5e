"""Your own images and boxes: a JSON file in COCO's format and a folder of images.

    python train.py --config configs/own_boxes.py --workdir runs/boxes --config.data.root=DIR \\
        --config.init_from=fca_resnet50.safetensors

DIR holds boxes.json and images/. A tenth of the images is held out for evaluation, by config.seed.
Most annotation tools (CVAT, Label Studio, Roboflow, labelme) export COCO's format. Variants:

    boxes     Faster R-CNN on fca_resnet50, from weights of ImageNet or of a detector (init_from)
    masks     Mask R-CNN; every object needs an outline, polygons or run-length codes.
              Needs pycocotools: pip install 'fcajax[detection]'
    scratch   Faster R-CNN on resnet18 without any weights, images of 533 x 320 at most
    smoke     with any of them: a few updates on small images

What is often changed:

    --config.data.train_annotations=FILE --config.data.train_images=DIR
                                            other files and folders, relative to data.root
    --config.data.eval_annotations=FILE --config.data.eval_images=DIR
                                            a set of its own for evaluation
    --config.data.source=voc                Pascal VOC: DIR/Annotations and DIR/JPEGImages
    --config.data.max_boxes=300             images with more than 100 objects
    --config.batch_size=2                   less memory; the learning rate follows
    --config.data.short_side=320 --config.data.long_side=533
                                            smaller images: a sixth of the arithmetic

What is wrong with the annotations (boxes outside their image, unknown categories, missing images,
polygons of two points) is left out, counted and named at the start. No AP is promised: it depends
on the images.
"""
from ml_collections import ConfigDict

from fcajax.configs import coco_faster_rcnn, common
from fcajax.input_pipeline.detection_settings import DetectionSettings

VARIANTS = ('boxes', 'masks', 'scratch')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config of the variant that `arg` names, 'boxes' by default."""
  variant, smoke = common.parse(arg, VARIANTS)
  config = coco_faster_rcnn.schedule_1x(common.get_config())
  config.batch_size = config.eval_batch_size = 8
  config.log_every_steps = 20
  config.optimizer.warmup_epochs = 0.5
  config.model.name = 'mask_rcnn_fpn' if variant == 'masks' else 'faster_rcnn_fpn'
  config.model.backbone = 'resnet18' if variant == 'scratch' else 'fca_resnet50'
  config.data = common.settings_tree(
      DetectionSettings, train_annotations='boxes.json', train_images='images',
      eval_annotations='', eval_images='', eval_split='',
      masks='box' if variant == 'masks' else 'none')
  if variant == 'scratch':
    config.dtype = 'float32'
    config.model.norm = 'sync'
    config.model.frozen_stages = -1
    config.num_epochs = 72.0
    config.optimizer.boundaries = (60.0, 68.0)
    config.data.short_side, config.data.long_side = 320, 533
  if smoke:
    coco_faster_rcnn.shrink(config)
    if variant != 'scratch':
      # FcaNet's filters of published sizes are larger than the feature maps of such small images.
      config.model.update(backbone_options={'allow_smaller': True})
  return config
