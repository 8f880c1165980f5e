"""`fcajax plot receptive-field MODEL...`: what part of the image one output position depends on.

    fcajax plot receptive-field resnet50 ffc_resnet50 --images photos/
"""
import math
from typing import Any, NamedTuple

from fcajax.cli import positive_int

# Lines that differ without colour too.
_STYLES = ('-', '--', '-.', ':')
_NOISE_IMAGES = 8


def add_arguments(parser):
  parser.add_argument(
      'models', nargs='+', metavar='MODEL',
      help="work directories, .safetensors files or names of 'fcajax list' (random weights), "
           'drawn side by side')
  parser.add_argument(
      '--images', nargs='+', default=None, metavar='PATH',
      help=f'image files or folders to average over (default: {_NOISE_IMAGES} images of noise)')
  parser.add_argument(
      '--image-size', type=int, nargs='+', default=None, metavar='SIZE',
      help='side of the image in pixels, or height and width, for a name')
  parser.add_argument(
      '--feature', default=None, metavar='STAGE',
      help="the feature map whose centre counts, such as 'stage3' (default: the last)")
  parser.add_argument(
      '--batch-size', type=positive_int, default=4, help='images at a time (default 4)')
  parser.add_argument('--seed', type=int, default=0, help='of random weights and noise (default 0)')
  parser.add_argument(
      '--out', default='receptive_field.png', metavar='FILE',
      help='picture to write (default receptive_field.png)')


def run(args):
  from fcajax.analysis import loading
  fields = {}
  for name in args.models:
    loaded = loading.load(name, args.image_size, args.seed)
    if args.images:
      _, images = loading.images_of(args.images, loaded.preprocessing)
    else:
      images = noise(loaded.preprocessing, args.seed)
    field = effective_receptive_field(loaded, images, args.feature, args.batch_size)
    label = loaded.name if loaded.trained else f'{loaded.name} (random weights)'
    fields[f'{label}, {name}' if label in fields else label] = field
    side = half_side(field)
    print(f'{label}: half of the gradient lies within {side} x {side} pixels')
  draw(fields, args.out, f'Effective receptive field of the centre of '
                         f'{args.feature or "the last map"}, {len(images)} '
                         f'{"image" if args.images else "noise image"}{"s"[:len(images) - 1]}')
  print(f'wrote {args.out}')
  return 0


class Field(NamedTuple):
  """Shares `[H, W]` that sum to 1, and the (row, column) of the input they lie around."""
  shares: Any
  centre: tuple[int, int]


def noise(preprocessing, seed=0):
  """Images uint8 `[8, h, w, 3]` of independent values."""
  import numpy as np
  shape = (_NOISE_IMAGES, *preprocessing.shape, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def effective_receptive_field(loaded, images, feature=None, batch_size=4):
  """How much each input position moves the centre of a feature map, as shares that sum to 1.

      R[h, w] = mean over images of sum over input channels of
                |d (sum over channels of F[h0, w0]) / d x[h, w]|,   (h0, w0) the centre of F

  in evaluation mode. Source: Luo et al., "Understanding the Effective Receptive Field", 2016.

  Args:
    loaded: of `fcajax.analysis.loading.load`.
    images: uint8 `[N, h, w, 3]`.
    feature: name of a feature map, None for the last.
    batch_size: images at a time.

  Returns:
    `Field` over the network's input. Its centre is h0 and w0 times the map's stride, as it is for
    odd kernels with symmetric padding.

  Raises:
    ValueError: the network has no such feature map.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  from fcajax.preprocess import device_transform
  transform = device_transform(loaded.preprocessing, 'float32')

  def maps(variables, x):
    _, features = loaded.model.apply(variables, x, train=False, capture_features=True)
    return {name: value for name, value in features.items() if value.ndim == 4}

  @jax.jit
  def gradient(variables, batch):
    def centre(x):
      value = maps(variables, x)[feature]
      return value[:, value.shape[1] // 2, value.shape[2] // 2].astype(jnp.float32).sum()
    return jnp.abs(jax.grad(centre)(transform(batch))).sum(3)

  # Filled while tracing: dictionaries that leave a transformed function are sorted by name.
  shapes = {}
  jax.eval_shape(
      lambda v, b: shapes.update({k: m.shape for k, m in maps(v, transform(b)).items()}),
      loaded.variables, images[:1])
  if feature is None:
    feature = list(shapes)[-1]
  if feature not in shapes:
    raise ValueError(f"{loaded.name} has no feature map '{feature}'; it has {', '.join(shapes)}")
  total = 0
  for start in range(0, len(images), batch_size):
    batch = images[start:start + batch_size]
    # One size of batch, so that one compiled program serves all.
    padded = np.concatenate([batch, images[:1].repeat(batch_size - len(batch), axis=0)])
    gradients = np.asarray(gradient(loaded.variables, padded), np.float64)
    total += gradients[:len(batch)].sum(0)
  return Field(total / total.sum(), tuple(
      size // 2 * 2**math.ceil(math.log2(side / size))
      for side, size in zip(total.shape, shapes[feature][1:3])))


def share_within(field):
  """Share of the gradient in the square of side 1, 3, 5, ... around the centre."""
  import numpy as np
  rows, columns = (abs(np.arange(side) - middle)
                   for side, middle in zip(field.shares.shape, field.centre))
  distance = np.maximum(rows[:, None], columns[None])
  return np.cumsum(np.bincount(distance.ravel(), field.shares.ravel()))


def half_side(field):
  """Side of the smallest square around the centre that holds half of the gradient."""
  import numpy as np
  return 2 * int(np.searchsorted(share_within(field), 0.5)) + 1


def draw(fields, path, title):
  """Draws the fields side by side on one logarithmic scale, and below how they gather.

  Args:
    fields: label -> field.
    path: picture to write.
    title: of the picture.
  """
  import numpy as np
  from matplotlib.colors import LogNorm
  from matplotlib.figure import Figure
  count = len(fields)
  figure = Figure(figsize=(max(7, 3.9 * count + 0.8), 6.9), layout='constrained')
  grid = figure.add_gridspec(2, count, height_ratios=(1.5, 1))
  axes = [figure.add_subplot(grid[0, i]) for i in range(count)]
  for axis, (label, field) in zip(axes, fields.items()):
    relative = field.shares / field.shares.max()
    image = axis.imshow(np.maximum(relative, 1e-9), cmap='cividis', norm=LogNorm(1e-4, 1))
    axis.plot(*field.centre[::-1], '+', color='black')
    side = half_side(field)
    axis.set_title(f'{label}\nhalf within {side} x {side} pixels', fontsize=10)
    axis.set(xlabel='x', ylabel='y')
  figure.colorbar(image, ax=axes, label='gradient / its maximum', shrink=0.8, extend='min')
  curves = figure.add_subplot(grid[1, :])
  for i, (label, field) in enumerate(fields.items()):
    shares = share_within(field)
    curves.plot(1 + 2 * np.arange(len(shares)), shares, _STYLES[i % len(_STYLES)], label=label,
                color=('#0072B2', '#D55E00', '#009E73', '#000000')[i % 4], linewidth=2)
  curves.set(xlabel='side of the square around the cross, in pixels',
             ylabel='share of the gradient', ylim=(0, 1.02))
  curves.set_xlim(left=0)
  curves.grid(alpha=0.3)
  curves.legend(frameon=False, fontsize=9)
  figure.suptitle(title, fontsize=12)
  figure.savefig(path, dpi=150)
