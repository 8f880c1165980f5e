"""`fcajax plot attention MODEL IMAGE...`: gate values by stage, channel and class."""

from fcajax.analysis import loading

_MOST_ROWS = 30


def add_arguments(parser):
  loading.add_arguments(parser, 'attention.png')
  parser.add_argument(
      '--by', choices=('folder', 'prediction', 'image'), default=None,
      help="what makes a row: the image's folder, the predicted class or each image (default: "
           'folder where there is more than one, else image)')
  parser.add_argument(
      '--block', type=int, default=-1,
      help='which block of each stage, counted from 0; -1, the default, is the last')


def run(args):
  import numpy as np

  loaded = loading.load(args.model, args.image_size)
  files, images = loading.images_of(args.images, loaded.preprocessing)
  gates, predicted = gate_values(loaded, images, args.batch_size)
  chosen = choose_blocks(gates, args.block)
  labels = row_labels(files, predicted, loaded.class_names, args.by)
  rows = sorted(set(labels))
  if len(rows) > _MOST_ROWS:
    print(f'showing {_MOST_ROWS} of {len(rows)} rows')
    rows = rows[:_MOST_ROWS]
  means = {layer: np.stack([values[np.array(labels) == row].mean(axis=0) for row in rows])
           for layer, values in chosen.items()}
  draw(means, rows, args.out, loaded, len(files))
  print(f'wrote {args.out}')
  return 0


def gate_values(loaded, images, batch_size=16):
  """Gate values of every attention layer that reports them.

  Args:
    loaded: of `loading.load`.
    images: uint8 `[N, h, w, 3]`.
    batch_size: images at a time.

  Returns:
    (dict of module path such as 'stage1/block0/attention' -> `[N, C]`, predicted class `[N]`).

  Raises:
    ValueError: the network has no layer with a gate.
  """
  import jax
  import numpy as np

  from fcajax.preprocess import device_transform
  transform = device_transform(loaded.preprocessing, 'float32')

  @jax.jit
  def forward(variables, batch):
    logits, state = loaded.model.apply(
        variables, transform(batch), train=False, mutable=['intermediates'])
    found = {'/'.join(part.key for part in path[:-2]): value for path, value in
             jax.tree_util.tree_leaves_with_path(state.get('intermediates', {}))
             if getattr(path[-2], 'key', None) == 'gate' and value.ndim == 2}
    return found, logits.argmax(axis=-1)

  gates, predicted = {}, []
  for start in range(0, len(images), batch_size):
    found, classes = forward(loaded.variables, images[start:start + batch_size])
    predicted.append(np.asarray(classes))
    for layer, value in found.items():
      gates.setdefault(layer, []).append(np.asarray(value))
  if not gates:
    raise ValueError(f"{loaded.name} has no attention layer with a gate; use a model built with "
                     "attention='fca', 'se', 'eca' or 'cbam'")
  gates = {layer: np.concatenate(values) for layer, values in gates.items()}
  return gates, np.concatenate(predicted)


def choose_blocks(gates, block):
  """The layers of one block of each stage: stage -> `[N, C]`."""
  by_stage = {}
  for layer in gates:
    by_stage.setdefault(layer.split('/')[0], []).append(layer)
  chosen = {}
  for stage in sorted(by_stage):
    layers = sorted(by_stage[stage], key=lambda layer: (len(layer), layer))
    if not -len(layers) <= block < len(layers):
      raise ValueError(f'--block {block}: {stage} has {len(layers)} blocks with attention, '
                       f'0 to {len(layers) - 1}')
    chosen[layers[block].rpartition('/')[0]] = gates[layers[block]]
  return chosen


def row_labels(files, predicted, class_names, by=None):
  """One label an image; see the command's `--by`."""
  folders = [file.resolve().parent.name for file in files]
  if by is None:
    by = 'folder' if len(set(folders)) > 1 else 'image'
  if by == 'folder':
    return folders
  if by == 'prediction':
    return [class_names[i] if class_names else f'class {i}' for i in predicted]
  return [file.stem for file in files]


def draw(means, rows, path, loaded, count):
  """Draws a panel for each layer: a row for each class or image, a column for each channel.

  Args:
    means: layer -> `[len(rows), C]` in 0 .. 1.
    rows: labels.
    path: picture to write.
    loaded: of `loading.load`, for the title.
    count: number of images.
  """
  from matplotlib.figure import Figure
  figure = Figure(figsize=(10, (0.9 + 0.24 * len(rows)) * len(means) + 0.9), layout='constrained')
  axes = figure.subplots(len(means), 1, squeeze=False)[:, 0]
  for axis, (layer, values) in zip(axes, means.items()):
    image = axis.imshow(values, cmap='cividis', vmin=0, vmax=1, aspect='auto',
                        interpolation='nearest')
    axis.set_yticks(range(len(rows)), [_shorten(row) for row in rows], fontsize=8)
    spread = f', deviation between rows {values.std(axis=0).mean():.3f}' if len(rows) > 1 else ''
    axis.set_title(f'{layer}: mean gate {values.mean():.3f}{spread}', loc='left', fontsize=10)
    axis.tick_params(length=2)
  axes[-1].set_xlabel('channel')
  figure.colorbar(image, ax=axes, label='gate value', shrink=min(1.0, 0.5 + 0.5 / len(means)))
  weights = '' if loaded.trained else ' (random weights)'
  figure.suptitle(f'Channel attention, {loaded.name}{weights}, '
                  f'{count} image{"s" if count > 1 else ""}', fontsize=12)
  figure.savefig(path, dpi=150)


def _shorten(text, length=28):
  return text if len(text) <= length else text[:length - 3] + '...'
