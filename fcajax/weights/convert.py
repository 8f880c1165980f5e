"""`fcajax convert IN OUT --model NAME`: PyTorch weights to a safetensors file.

    fcajax convert fcanet50.pth fcanet50.safetensors --model fca_resnet50
    fcajax convert flowers.pth flowers.safetensors --model resnet18 --class-names flowers.txt
"""
import json
import pathlib

from fcajax.cli import positive_int


def add_arguments(parser):
  parser.add_argument('input', help='.pth or .safetensors with a PyTorch state dict')
  parser.add_argument('output', help='the .safetensors file to write')
  parser.add_argument('--model', required=True, help="a name of 'fcajax list'")
  parser.add_argument('--num-classes', type=positive_int, default=None,
                      help='classes of the head (default: read from the checkpoint)')
  parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                      help="a field of the model, such as frequencies='top8'; may be repeated")
  parser.add_argument('--class-names', metavar='FILE',
                      help='a name a line in the order of the logits, or a JSON list')
  parser.add_argument('--image-size', type=int, nargs='+', default=None, metavar='SIZE',
                      help='side of the image in pixels, or height and width (default 224, 32 '
                           'for the 32x32 networks, 448 or 896 for those on coefficients)')
  parser.add_argument('--resize-size', type=int, default=0,
                      help='the short side before the crop (default: image size * 256 / 224)')
  parser.add_argument('--mean', type=float, nargs=3, default=None,
                      help="of RGB in 0..1 (default: ImageNet's)")
  parser.add_argument('--std', type=float, nargs=3, default=None,
                      help="of RGB in 0..1 (default: ImageNet's)")
  parser.add_argument('--statistics', default='published', metavar='FILE',
                      help="of coefficients, for networks that read them: a file, 'published' "
                           "(default) or 'none'")


def run(args):
  from fcajax.analysis.loading import parse_settings
  from fcajax.weights.safetensors_file import save_safetensors
  if pathlib.Path(args.output).suffix != '.safetensors':
    raise ValueError(f"cannot write '{args.output}'; its name must end in .safetensors")
  folder = pathlib.Path(args.output).parent
  if not folder.is_dir():
    raise ValueError(f"cannot write '{args.output}': the folder '{folder}' does not exist; create "
                     'it first')
  settings = parse_settings(args.set, classes='--num-classes', model='--model')
  model, variables, overrides, prefix = convert(
      args.input, args.model, args.num_classes, settings)
  metadata = {
      'model': {'name': args.model, 'num_classes': model.num_classes, 'overrides': overrides},
      'class_names': read_class_names(args.class_names, model.num_classes),
      'preprocessing': _preprocessing(args, model).to_dict(),
  }
  save_safetensors(args.output, variables, metadata)
  count = sum(leaf.size for leaf in _leaves(variables['params']))
  if prefix:
    print(f"left out '{prefix}', with which the name of every tensor starts")
  fields = ''.join(f', {key}={value!r}' for key, value in overrides.items())
  print(f'wrote {args.output}: {args.model}, {model.num_classes} classes{fields}, '
        f'{count:,} parameters')
  return 0


def convert(path, name, num_classes=None, overrides=None):
  """Reads PyTorch weights into the network `name`.

  Args:
    path: a checkpoint, as `fcajax.weights.torch_file.read_checkpoint` takes it.
    name: of `list_models()`.
    num_classes: None takes the width of the checkpoint's head.
    overrides: of `create_model`; they win over what the checkpoint says about the network (biases
      in the attention, its width).

  Returns:
    (model, variables of NumPy arrays, all overrides that the model was built with, the prefix that
    was left out of every name). What overrides name by file is written out, as weights must not
    need the file.

  Raises:
    ValueError: no checkpoint, or one that does not fit; every key that does not is listed.
  """
  from fcajax.analysis.loading import explained
  from fcajax.models.options import portable
  from fcajax.models.registry import create_model, option_names
  from fcajax.weights.torch_file import read_checkpoint
  from fcajax.weights.torch_import import clean_state, from_torch, rules_for, shared_prefix, tensors
  given = dict(overrides or {})
  with explained(name, given):
    plain = create_model(name, **given)
    overrides = portable(given)
  checkpoint = read_checkpoint(path)
  state = clean_state(checkpoint)
  rules = rules_for(plain)
  inferred = rules.infer_overrides(state) if hasattr(rules, 'infer_overrides') else {}
  classes = inferred.pop('num_classes', None)
  allowed = option_names(name, **overrides)
  overrides = {**{key: value for key, value in inferred.items() if key in allowed}, **overrides}
  model = create_model(name, num_classes=num_classes or classes or plain.num_classes, **overrides)
  try:
    with explained(name, given):
      variables = from_torch(state, model)
  except ValueError as error:
    raise type(error)(f"'{path}' as {name}: {error}") from error
  return model, variables, overrides, shared_prefix(tensors(checkpoint))


def read_class_names(path, num_classes):
  """The names in a file, checked against the number of classes; 'class 0', ... where path is None.

  Raises:
    ValueError: another number of names, or JSON that is no list of strings.
  """
  if path is None:
    return [f'class {i}' for i in range(num_classes)]
  text = pathlib.Path(path).read_text(encoding='utf-8')
  if pathlib.Path(path).suffix == '.json':
    try:
      names = json.loads(text)
    except json.JSONDecodeError as error:
      raise ValueError(f"'{path}' is no JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise ValueError(f"'{path}' must hold a JSON list of strings, the names in the logits' order")
  else:
    names = [line.strip() for line in text.splitlines() if line.strip()]
  if len(names) != num_classes:
    raise ValueError(f"'{path}' names {len(names)} classes, the network has {num_classes}")
  return names


def _preprocessing(args, model):
  """What images need before `model`."""
  from fcajax.preprocess import Preprocessing
  on_coefficients = hasattr(model, 'coefficients')
  if args.image_size is None:
    size = 32 if getattr(model, 'stem', None) == 'cifar' else 224
    if on_coefficients:
      # Without the stem, which strides by 4 in a ResNet and by 2 in MobileNetV2, 8 is too much.
      size = 448 if hasattr(model, 'stage_sizes') else 896
  elif len(args.image_size) > 2:
    raise ValueError(f'--image-size takes one side, or height and width; got {args.image_size}')
  else:
    size = args.image_size[0] if len(args.image_size) == 1 else tuple(args.image_size)
  fields = {key: value for key, value in (('mean', args.mean), ('std', args.std)) if value}
  if on_coefficients:
    from fcajax.ops.coefficients import coefficient_statistics, portable_spec
    fields |= {'representation': 'dct', 'coefficients': portable_spec(model.coefficients)}
    if args.statistics != 'none':
      mean, std = coefficient_statistics(args.statistics, model.coefficients, 'full', size)
      fields |= {'coefficient_mean': mean.tolist(), 'coefficient_std': std.tolist()}
  return Preprocessing(image_size=size, resize_size=args.resize_size, **fields)


def _leaves(tree):
  import jax
  return jax.tree.leaves(tree)
