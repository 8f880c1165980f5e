"""`fcajax plot coefficients IMAGE`: what a network on block-DCT coefficients sees of an image."""
import pathlib

# Where the first coefficients of Y, Cb and Cr are drawn, (row, column).
_PLACES = (((0, 1), (0, 2), (1, 1), (1, 2)), ((0, 3), (1, 3)), ((0, 4), (1, 4)))


def add_arguments(parser):
  parser.add_argument('image', help='an image file')
  parser.add_argument('--coefficients', default='24S',
                      help="subset: a name, a .json file or 'y:0,1;cb:0;cr:0' (default 24S)")
  parser.add_argument('--image-size', type=int, default=448,
                      help='side of the centre crop in pixels, a multiple of 16 (default 448)')
  parser.add_argument('--chroma', default='full', choices=('full', 'half'),
                      help='chroma blocks at full or at half resolution (default full)')
  parser.add_argument('--out', default='coefficients.png', metavar='FILE',
                      help='picture to write (default coefficients.png)')


def run(args):
  from fcajax import preprocess
  from fcajax.ops.coefficients import coefficient_subset, rgb_to_coefficients
  subset = coefficient_subset(args.coefficients)
  settings = preprocess.Preprocessing(args.image_size, representation='dct', chroma=args.chroma,
                                      coefficients=subset.spec)
  image = preprocess.evaluation_transform(
      preprocess.decode_image(pathlib.Path(args.image)), settings)
  maps = rgb_to_coefficients(image[None], subset, args.chroma)[0]
  _draw(image, maps, subset, args)
  print(f'wrote {args.out}: {args.image_size} x {args.image_size} pixels as {maps.shape[0]} x '
        f'{maps.shape[1]} blocks of {len(subset)} coefficients')
  return 0


def _draw(image, maps, subset, args):
  """The crop, the subset on its 8 x 8 blocks, and the first coefficients of each component."""
  import numpy as np
  from matplotlib.figure import Figure
  figure = Figure(figsize=(10, 4.4), layout='constrained')
  axes = figure.subplots(2, 5)
  for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
  axes[0, 0].imshow(image)
  axes[0, 0].set_title(f'{args.image_size} x {args.image_size} pixels', fontsize=9)
  chosen = np.zeros(192)
  chosen[subset.flat] = 1
  blocks = np.pad(chosen.reshape(3, 8, 8), ((0, 0), (0, 0), (1, 1)), constant_values=np.nan)
  axes[1, 0].imshow(np.concatenate(blocks, 1), cmap='Blues', vmin=-0.15, vmax=1.4)
  axes[1, 0].set_title(f'{len(subset)} of 192: Y, Cb, Cr', fontsize=9)

  start = 0
  for name, component, places in zip(('Y', 'Cb', 'Cr'), subset.components, _PLACES):
    for offset, (index, place) in enumerate(zip(component, places)):
      values = np.asarray(maps[..., start + offset])
      limit = np.percentile(np.abs(values), 99) or 1
      axes[place].imshow(values, cmap='gray', vmin=-limit, vmax=limit)
      axes[place].set_title(f'{name} ({index // 8}, {index % 8})', fontsize=9)
    start += len(component)
  figure.savefig(args.out, dpi=110)
