"""Parameters and multiply-adds of every model: the tables of docs/models.md.

    python benchmarks/model_table.py            # prints them
    python benchmarks/model_table.py --write    # puts them into docs/models.md

Nothing is computed but shapes; it takes a minute or two, and gives the same on every machine.
"""
import argparse
import pathlib
import re

from fcajax.analysis import cost, loading
from fcajax.models.registry import create_model, list_models

PAGE = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'models.md'

# FcaNet, table 2: millions of parameters, GFLOPs as printed there.
FCANET_PAPER = {
    'fca_resnet34': (21.95, 3.68), 'fca_resnet50': (28.07, 4.13),
    'fca_resnet101': (49.29, 7.86), 'fca_resnet152': (66.77, 11.60)}
ATTENTION_PAPER = {'cbam': 28.07, 'gc': 28.11, 'fca': 28.07}
ATTENTIONS = (
    ('none', 'ResNet-50'), ('se', 'squeeze-and-excitation'), ('eca', 'efficient channel attention'),
    ('fca', 'multi-spectral, Top-16'), ('cbam', 'convolutional block attention'),
    ('gc', 'global context'))


def count(name, image_size=None, **overrides):
  """(Cost, image size in pixels) of a model at the size it is made for."""
  model = create_model(name, **overrides)
  size = loading.image_size(image_size, model)
  return cost.count(model, loading.input_shape(model, size)), size


def table(header, rows):
  """Markdown; the first column is left-aligned, the others right."""
  lines = ['| ' + ' | '.join(header) + ' |',
           '|---|' + '---:|' * (len(header) - 1)]
  return '\n'.join([*lines, *('| ' + ' | '.join(row) + ' |' for row in rows)])


def figures(counted):
  total = counted.total
  row = [f'{total.parameters:,}', f'{total.macs / 1e9:.3f}', f'{total.activations / 1e6:.2f}']
  extra = [f'{value / 1e6:.2f}' if value else '' for value in (total.dct_macs, total.fourier_macs)]
  return row[:2] + extra + row[2:]


def all_models():
  rows = []
  for name in list_models():
    counted, size = count(name)
    shape = ' x '.join(map(str, counted.input_shape))
    rows.append([f'`{name}`', f'{size[0]}', shape, *figures(counted)])
  return table(['model', 'image', 'input', 'parameters', 'G MACs', 'DCT M', 'Fourier M',
                'activations M'], rows)


def fcanets():
  rows = []
  for name, (parameters, flops) in FCANET_PAPER.items():
    total = count(name)[0].total
    rows.append([f'`{name}`', f'{total.parameters:,}', f'{parameters:.2f} M', f'{total.macs:,}',
                 f'{total.dct_macs:,}', f'{flops:.2f} G'])
  return table(['model', 'parameters', "paper's", 'MACs', 'of the DCT, apart', "paper's FLOPs"],
               rows)


def attentions():
  rows = []
  plain = count('resnet50')[0].total
  for attention, text in ATTENTIONS:
    total = count('resnet50', attention=attention)[0].total
    paper = ATTENTION_PAPER.get(attention)
    rows.append([f"`'{attention}'`, {text}", f'{total.parameters:,}',
                 f'{total.parameters - plain.parameters:,}', f'{paper:.2f} M' if paper else '',
                 f'{total.macs / 1e9:.3f}', f'{(total.macs - plain.macs) / 1e6:.2f}',
                 f'{total.dct_macs / 1e6:.2f}' if total.dct_macs else ''])
  return table(['`attention=` on ResNet-50', 'parameters', 'added', "FcaNet's table 2", 'G MACs',
                'added M', 'DCT M'], rows)


TABLES = {'all': all_models, 'fcanet': fcanets, 'attention': attentions}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--write', action='store_true', help='into docs/models.md')
  args = parser.parse_args()
  page = PAGE.read_text() if args.write else ''
  for name, make in TABLES.items():
    text = make()
    if args.write:
      page, found = re.subn(f'(<!-- table {name} -->\n).*?(<!-- end -->)',
                            lambda match, text=text: f'{match[1]}{text}\n{match[2]}', page,
                            flags=re.DOTALL)
      if found != 1:
        raise SystemExit(f'{PAGE} has {found} places for the table {name!r}; it needs one')
    else:
      print(text, end='\n\n')
  if args.write:
    PAGE.write_text(page)


if __name__ == '__main__':
  main()
