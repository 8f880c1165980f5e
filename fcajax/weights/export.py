"""`fcajax export MODEL OUT`: a trained model as one file.

    fcajax export runs/flowers flowers.safetensors  # weights, class names, preprocessing
    fcajax export runs/flowers flowers.stablehlo    # a function: pixels to probabilities
"""
import pathlib

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export_stablehlo(model, variables, preprocessing, platforms=PLATFORMS):
  """Serialises pixels -> probabilities with the weights inside, by `jax.export`.

  Args:
    model: a network of `create_model` or `load_model`.
    variables: its variables.
    preprocessing: `fcajax.preprocess.Preprocessing`; its normalisation or block DCT goes into the
      function, whose input is uint8 RGB `[N, H, W, 3]` at the preprocessing's image size.
    platforms: where the file shall run.

  Returns:
    Bytes for `jax.export.deserialize(...).call(images)`; the batch size N stays free.
  """
  import jax
  from jax import export

  from fcajax.layers.conv_lowering import force_lowering
  from fcajax.predict import probabilities_function
  size = preprocessing.image_size
  height, width = (size, size) if isinstance(size, int) else size
  (batch,) = export.symbolic_shape('n')
  images = jax.ShapeDtypeStruct((batch, height, width, 3), 'uint8')
  function = probabilities_function(model, preprocessing)
  exporter = export.export(jax.jit(lambda x: function(variables, x)), platforms=platforms)
  # One program for all platforms: what suits this machine's CPU alone would slow the others.
  with force_lowering('auto' if tuple(platforms) == ('cpu',) else 'conv'):
    exported = exporter(images)
  return bytes(exported.serialize())


def add_arguments(parser):
  parser.add_argument('model', help='a work directory of train.py or a .safetensors file')
  parser.add_argument('output', help='a path ending in .safetensors or .stablehlo')
  parser.add_argument(
      '--platforms', default=','.join(PLATFORMS),
      help=f"for .stablehlo: where it runs, comma-separated (default {','.join(PLATFORMS)})")


def run(args):
  output = pathlib.Path(args.output)
  if output.suffix not in ('.safetensors', '.stablehlo'):
    raise ValueError(
        f"cannot export to '{output}'; its name must end in .safetensors or .stablehlo")
  platforms = tuple(args.platforms.split(','))
  unknown = [name for name in platforms if name not in (*PLATFORMS, 'rocm')]
  if unknown:
    raise ValueError(f"--platforms={args.platforms}: unknown {', '.join(unknown)}; "
                     f"choose among {', '.join(PLATFORMS)}, rocm")
  if not output.parent.is_dir():
    raise ValueError(f"folder '{output.parent}' does not exist; create it first")
  if output.suffix == '.stablehlo':
    try:
      import flatbuffers  # noqa: F401
    except ImportError:
      raise ValueError("a .stablehlo file needs the package flatbuffers: "
                       "pip install 'fcajax[export]'") from None

  from fcajax.preprocess import Preprocessing
  from fcajax.weights import load_model, save_safetensors
  model, variables, metadata = load_model(args.model)
  if output.suffix == '.safetensors':
    save_safetensors(output, variables, metadata)
  else:
    preprocessing = Preprocessing.from_dict(metadata['preprocessing'])
    output.write_bytes(export_stablehlo(model, variables, preprocessing, platforms))
  print(f'wrote {output} ({output.stat().st_size / 1e6:.1f} MB)')
  return 0
