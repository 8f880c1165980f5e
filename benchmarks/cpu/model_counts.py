"""Parameters and multiply-adds of every classifier, and of the variants that the docs compare.

    python -m benchmarks.cpu.model_counts --write && python -m benchmarks.tables --write

Nothing is computed but shapes; it takes a minute or two, and gives the same on every machine.
"""
from benchmarks import common
from fcajax.analysis import cost
from fcajax.configs import imagenet_ffc
from fcajax.inference import open_model
from fcajax.models.registry import BACKBONES, create_model

ATTENTIONS = ('none', 'se', 'eca', 'fca', 'cbam', 'gc')
# Networks of docs/dct_input.md that no name stands for.
DCT_INPUT = {
    'resnet50_s1122': ('resnet50', {'stage_strides': (1, 1, 2, 2)}),
    'dct_resnet50_64S': ('dct_resnet50', {'coefficients': '64S'}),
    'dct_resnet50_192': ('dct_resnet50', {'coefficients': '192'}),
}


def count(name, **overrides):
  """Counts a model at the image size that it is made for."""
  model = create_model(name, **overrides)
  size = open_model.image_size(None, model)
  counted = cost.count(model, open_model.input_shape(model, size))
  total = counted.total
  return {
      'image': list(size), 'input': list(counted.input_shape), 'parameters': total.parameters,
      'macs': total.macs, 'dct_macs': round(total.dct_macs),
      'fourier_macs': round(total.fourier_macs), 'activations': total.activations}


def measure(args):
  names = args.models or sorted(BACKBONES)
  results = {'models': {name: count(name) for name in names}}
  if args.models:
    return results
  results['attention_on_resnet50'] = {
      attention: count('resnet50', attention=attention) for attention in ATTENTIONS}
  results['dct_input'] = {
      label: count(name, **fields) for label, (name, fields) in DCT_INPUT.items()}
  results['imagenet_ffc'] = {
      variant: count(**{'name': 'ffc_resnet50', **fields})
      for variant, fields in imagenet_ffc.VARIANTS.items()}
  return results


def show(results):
  for title, rows in results.items():
    print(f'\n{title}\n')
    print(common.markdown(['', 'input', 'parameters', 'G MACs'], [
        [name, ' x '.join(map(str, row['input'])), f'{row["parameters"]:,}',
         f'{row["macs"] / 1e9:.3f}'] for name, row in rows.items()], 'llrr'))


def main(argv=None):
  common.run('benchmarks.cpu.model_counts', __doc__, measure, show, argv=argv, options={
      '--models': {'nargs': '+', 'help': 'count these alone'},
  }, small={'models': ['fca_resnet20']})


if __name__ == '__main__':
  main()
