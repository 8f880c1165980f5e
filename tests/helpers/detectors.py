"""Small detectors and batches of the tests."""
import jax
import jax.numpy as jnp
import numpy as np

from fcajax.models.detection.targets import Truth
from fcajax.models.registry import create_model

# A ResNet of four tiny stages in place of resnet18's widths.
TINY = {'stage_sizes': (1, 1, 1, 1), 'width': 8}


def tiny_detector(name='mask_rcnn_fpn', **options):
  """A detector that compiles in seconds."""
  fields = {'backbone': 'resnet18', 'backbone_options': TINY, 'num_classes': 3, 'channels': 16,
            'proposals_before': (40, 30), 'proposals_after': (30, 20), 'detections': 10,
            'rpn_sampling': (64, 0.5), 'box_sampling': (24, 0.25), 'norm': 'batch',
            'frozen_stages': -1}
  return create_model(name, **{**fields, **options})


def draw_variables(model, images):
  """Variables of a detector as He et al. draw them; compiling `init` would take 20 seconds."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return jnp.ones(leaf.shape)
    if leaf.ndim < 2:
      return jnp.zeros(leaf.shape)
    spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return jnp.asarray(spread * rng.standard_normal(leaf.shape), jnp.float32)
  return jax.tree_util.tree_map_with_path(draw, shapes)


def tiny_batch(images=2, size=(64, 96), objects=4, seed=0):
  """(images, image sizes, truth) with one to `objects` boxes an image and masks cut to them."""
  rng = np.random.default_rng(seed)
  height, width = size
  pictures = rng.standard_normal((images, height, width, 3))
  sizes = np.stack([rng.integers(height // 2, height + 1, images),
                    rng.integers(width // 2, width + 1, images)], axis=1)
  corner = rng.uniform(0, 0.5, (images, objects, 2)) * sizes[:, None, ::-1]
  extent = rng.uniform(0.2, 0.5, (images, objects, 2)) * sizes[:, None, ::-1]
  boxes = np.concatenate([corner, corner + extent], axis=-1)
  valid = np.arange(objects) < rng.integers(1, objects + 1, (images, 1))
  boxes = np.where(valid[..., None], boxes, 0)
  truth = Truth(
      jnp.asarray(boxes, jnp.float32), jnp.asarray(rng.integers(0, 3, (images, objects))),
      jnp.asarray(valid), masks=jnp.asarray(rng.random((images, objects, 28, 28)) < 0.7, jnp.uint8),
      regions=jnp.asarray(boxes, jnp.float32))
  return jnp.asarray(pictures, jnp.float32), jnp.asarray(sizes), truth
