"""`fcajax plot spectrum MODEL IMAGE...`: where the energy of the feature maps lies, by stage."""

from fcajax.analysis import loading


def add_arguments(parser):
  loading.add_arguments(parser, 'spectrum.png')


def run(args):
  loaded = loading.load(args.model, args.image_size)
  files, images = loading.images_of(args.images, loaded.preprocessing)
  spectra = feature_spectra(loaded, images, args.batch_size)
  draw(spectra, args.out, loaded, len(files))
  print(f'wrote {args.out}')
  return 0


def cosine_energy(features):
  """Mean over images and channels of the squared orthonormal DCT-II, `[N, H, W, C] -> [H, W]`.

      E[u, v] = mean over n, c of (sum over i, j of x[n, i, j, c] b_u[i] b_v[j])^2

  Its sum is the mean of the squared values times H W (Parseval).
  """
  import jax.numpy as jnp
  from jax import lax

  from fcajax.ops.dct import dct_basis
  height, width = features.shape[1:3]
  coefficients = jnp.einsum(
      'nijc,iu,jv->nuvc', features.astype(jnp.float32), dct_basis(height), dct_basis(width),
      precision=lax.Precision.HIGHEST)
  return jnp.mean(coefficients**2, axis=(0, 3))


def feature_spectra(loaded, images, batch_size=16):
  """`cosine_energy` of the input and of every stage, as shares of each total: name -> `[H, W]`."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from fcajax.preprocess import device_transform
  transform = device_transform(loaded.preprocessing, 'float32')

  @jax.jit
  def energies(variables, batch):
    x = transform(batch)
    _, features = loaded.model.apply(variables, x, train=False, capture_features=True)
    maps = {'input': x, **{name: value for name, value in features.items() if value.ndim == 4}}
    names.extend(name for name in maps if name not in names)
    return {name: cosine_energy(value) for name, value in maps.items()}

  names, totals = [], {}
  for start in range(0, len(images), batch_size):
    batch = jnp.asarray(images[start:start + batch_size])
    for name, energy in energies(loaded.variables, batch).items():
      totals[name] = totals.get(name, 0) + np.asarray(energy) * len(batch)
  # Compiled functions return dictionaries sorted by name; `names` holds the network's order.
  order = [name for name in ('input', 'stem', *names) if name in totals]
  return {name: totals[name] / totals[name].sum() for name in dict.fromkeys(order)}


def low_share(energy, part=7):
  """Share of the energy in the lowest `part`-th of the u and of the v, (0, 0) included."""
  height, width = energy.shape
  return energy[:-(-height // part), :-(-width // part)].sum()


def draw(spectra, path, loaded, count):
  """Draws the shares on a logarithmic scale, one panel a stage.

  Args:
    spectra: of `feature_spectra`.
    path: picture to write.
    loaded: of `loading.load`, for the title.
    count: number of images.
  """
  import numpy as np
  from matplotlib.colors import LogNorm
  from matplotlib.figure import Figure
  columns = min(3, len(spectra))
  lines = -(-len(spectra) // columns)
  figure = Figure(figsize=(3.3 * columns + 0.9, 3.4 * lines + 0.6), layout='constrained')
  axes = figure.subplots(lines, columns, squeeze=False)
  for axis in axes.flat[len(spectra):]:
    axis.set_axis_off()
  for axis, (name, energy) in zip(axes.flat, spectra.items()):
    height, width = energy.shape
    image = axis.imshow(np.maximum(energy, 1e-8), cmap='cividis', norm=LogNorm(1e-6, 1),
                        extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axis.set_title(f'{name}, {height} x {width}\n(0, 0) holds {energy[0, 0]:.0%}, the lowest '
                   f'seventh {low_share(energy):.0%}', fontsize=10)
    axis.set(xlabel='v', ylabel='u')
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=6)
  figure.colorbar(image, ax=axes, label='share of the energy', shrink=0.8, extend='min')
  weights = '' if loaded.trained else ' (random weights)'
  figure.suptitle(f'DCT energy of the feature maps, {loaded.name}{weights}, '
                  f'{count} image{"s" if count > 1 else ""}', fontsize=12)
  figure.savefig(path, dpi=150)
