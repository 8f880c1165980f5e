"""Makes the tables of README.md and docs/ from the files in benchmarks/results/.

    python -m benchmarks.tables --write     # puts them between their marks
    python -m benchmarks.tables --check     # exit status 1 if a page says something else

A table stands between `<!-- table NAME -->` and `<!-- end -->`; `TABLES` says which function makes
it. To measure again: `python -m benchmarks.cpu.NAME --write`, then this command.
"""
import argparse
import json
import pathlib
import re
import sys

from benchmarks.common import RESULTS, markdown

ROOT = pathlib.Path(__file__).resolve().parents[1]

# FcaNet, table 2: millions of parameters, GFLOPs as printed there.
FCANET_PAPER = {
    'fca_resnet34': (21.95, 3.68), 'fca_resnet50': (28.07, 4.13),
    'fca_resnet101': (49.29, 7.86), 'fca_resnet152': (66.77, 11.60)}
ATTENTION_PAPER = {'cbam': 28.07, 'gc': 28.11, 'fca': 28.07}
ATTENTIONS = {
    'none': 'ResNet-50', 'se': 'squeeze-and-excitation', 'eca': 'efficient channel attention',
    'fca': 'multi-spectral, Top-16', 'cbam': 'convolutional block attention',
    'gc': 'global context'}
LAYERS = {
    'se': ('SqueezeExcite', 'average over H and W, two dense layers, gate'),
    'fca': ('MultiSpectralAttention', 'the same with DCT filters in place of the average'),
    'eca': ('EfficientChannelAttention', 'average, convolution along the channels, gate'),
    'cbam': ('ConvolutionalBlockAttention',
             'averages and maxima: a gate per channel, then one per position'),
    'gc': ('GlobalContext', 'average weighted by a learned mask, two dense layers, added')}
# FFC, tables 2 to 4 and the cross-scale ablation: variant -> where, network and ratio, local
# Fourier units, top-1 accuracy on ImageNet in percent.
FFC_PAPER = {
    'a0': ('Table 2', '50, 0', 'no', 76.3),
    'a0.125': ('Table 2', '50, 0.125', 'no', 77.3),
    'a0.25': ('Table 2', '50, 0.25', 'no', 77.6),
    'a0.5': ('Table 2', '50, 0.5', 'no', 77.8),
    'a0.75': ('Table 2', '50, 0.75', 'no', 77.6),
    'a1': ('Table 2', '50, 1', 'no', 75.2),
    'a0.25_lfu': ("Table 3; Table 4's 26.7 M", '50, 0.25', 'yes', 77.8),
    'a0.5_lfu': ('Table 3', '50, 0.5', 'yes', 77.9),
    'resnet101': ("Table 4's 46.1 M", '101, 0.25', 'no', 78.8),
    'resnet152': ("Table 4's 62.6 M", '152, 0.25', 'no', 78.9),
    'resnext50': ("Table 4's 28.0 M", 'ResNeXt-50 32x4d, 0.5', 'no', 78.0),
    'no_global_to_local': ('cross-scale ablation', '50, 0.25, no global to local', 'no', 76.6),
    'no_local_to_global': ('cross-scale ablation', '50, 0.25, no local to global', 'no', 76.2),
    'no_crossing': ('cross-scale ablation', '50, 0.25, neither', 'no', 75.6)}


def record(name):
  """Reads a result file: command, date, versions, processor, results."""
  return json.loads((RESULTS / f'{name}.json').read_text())


def results(name):
  return record(name)['results']


def measured(name, table):
  """Adds to a table where its numbers come from."""
  file = record(name)
  version = f'fcajax {file["versions"]["fcajax"]}'
  if 'jax' in file['versions']:
    version += f', jax {file["versions"]["jax"]}'
  return f'{table}\n\n`{file["command"]}`; {file["processor"]}; {version}; {file["date"]}.'


def giga(value, digits=3):
  return f'{value / 1e9:.{digits}f}'


def mega(value):
  return f'{value / 1e6:.2f}' if value else ''


def with_transform(row):
  """Formats G MACs with those of the DCT or FFT apart."""
  text = giga(row['macs'])
  if row['dct_macs']:
    text += f' + {giga(row["dct_macs"])} for the DCT'
  if row['fourier_macs']:
    text += f' + {giga(row["fourier_macs"])} for the FFT'
  return text


def host_time():
  found = results('input_pipeline')
  transform, inputs = found['transform']['224'], found['coefficients']
  published = min((name for name in inputs if name.startswith('published method')),
                  key=lambda name: inputs[name]['milliseconds'])
  rows = [('JPEG decoding alone, a bound', transform['decoding alone'], None),
          ('RGB 224 x 224, Pillow', transform['Pillow'], 150_528),
          ('RGB 224 x 224', transform['this pipeline'], 150_528)]
  rows += [(text, inputs[name]['milliseconds'], inputs[name]['bytes']) for text, name in (
      ('RGB 448 x 448, DCT on the device', 'RGB to the device, DCT there'),
      ('YCbCr 4:2:0 of 448 x 448, DCT on the device', '4:2:0 planes to the device, DCT there'),
      ('24 DCT coefficients (24S) as int16', 'DCT on the host, int16, published chroma'),
      ('24 DCT coefficients (24S) as int8', 'DCT on the host, int8, published chroma'),
      ('the published method (two JPEG re-encodes, coefficient reader), rebuilt', published))]
  table = markdown(['what the host makes', 'ms an image', 'bytes sent'], [
      [text, f'{ms:.2f}', f'{size:,}' if size else ''] for text, ms, size in rows])
  return measured('input_pipeline', table)


def decoders():
  rows = results('decoders')['decoders']
  return measured('decoders', markdown(['decoder', 'ms an image'], [
      [name, f'{row["milliseconds"]:.2f}'] for name, row in rows.items()]))


def conv_step():
  rows = [[f'{step["size"]} x {step["size"]}',
           *(f'{step["lowerings"][name]["wall_seconds"]:.2f}' for name in ('conv', 'auto')),
           f'{step["bound_seconds"]:.2f}'] for step in results('conv')['steps']]
  header = ['images', "XLA's convolution throughout, s", '`Conv`, s', 'bound, s']
  return measured('conv', markdown(header, rows))


def fourier_unit():
  found = results('fourier')
  rows = [[label, f'{times["fft"]:.2f}', f'{times["dft"]:.2f}',
           f'{times["fft"] / times["dft"]:.2f}']
          for label, times in found['milliseconds']['Fourier unit'].items()]
  return measured('fourier', markdown(['map', '`fft`, ms', '`dft`, ms', 'ratio'], rows))


def search_speed():
  return measured('frequency_search', markdown(['candidates', 'speed of `vmap` over `loop`'], [
      [str(row['candidates']), f'{row["speed_up"]:.2f}']
      for row in results('frequency_search')['rows']]))


def search_ranking():
  rows = results('search_imagenette64')['ranking']
  cells = [[str(row['rank']), f'({row["frequency"][0]}, {row["frequency"][1]})',
            f'{row["accuracy"]:.2f} ± {row["std"]:.2f}'] for row in rows]
  half = len(cells) // 2
  header = ['rank', '(u, v)', 'accuracy, %']
  return measured('search_imagenette64', markdown([*header, '', *header], [
      [*best, '', *worst] for best, worst in zip(cells[:half], cells[half:])], 'rlllr'))


def search_top_k():
  scores = results('search_imagenette64')['top_k']
  return markdown(['Top-k', *scores], [
      ['accuracy, %', *(f'{value:.2f}' for value in scores.values())]])


def imagenette_dct():
  rows = []
  for name, row in results('imagenette_dct').items():
    text = f'`{name}`' + (' (192 coefficients, penalty 0.01 each)' if name == 'gated' else '')
    last = f'{row["last"]:.1f}%'
    if 'last_sampled_gate' in row:
      last += f'; {row["last_sampled_gate"]:.1f}% with a sampled gate'
    rows.append([text, f'{row["mega_macs"]:.1f} M', last, f'{row["best"]:.1f}%'])
  return markdown(['variant', 'multiply-adds', 'top-1 after the last step', 'best'], rows)


def readme_models():
  counts = results('model_counts')['models']
  small = counts['fca_resnet20']

  def both(first, second, digits):
    return '; '.join(giga(counts[name]['macs'], digits) for name in (first, second))

  def row(text, name, source):
    return [text, f'{counts[name]["parameters"]:,}', with_transform(counts[name]), source]
  dct, mobile = 'Learning in the Frequency Domain', counts['mobilenet_v2']
  rows = [
      row('`resnet18 34 50 101 152`, `resnext50_32x4d`', 'resnet50', 'ResNet v1.5, the baseline'),
      row('`fca_resnet18 34 50 101 152`, `fca_resnext50_32x4d`', 'fca_resnet50', 'FcaNet'),
      ["`se_*`, `eca_*` of the same; `attention='cbam'`, `'gc'` on any ResNet",
       'see the next table', '', "FcaNet's baselines"],
      ['`dct_resnet18 34 50 101` on 24 coefficients; `*_s1122` with the published strides',
       f'{counts["dct_resnet50"]["parameters"]:,}', both('dct_resnet50', 'dct_resnet50_s1122', 3),
       dct],
      ['`mobilenet_v2`; `dct_mobilenet_v2` on 24 coefficients',
       f'{mobile["parameters"]:,}; {counts["dct_mobilenet_v2"]["parameters"]:,}',
       both('mobilenet_v2', 'dct_mobilenet_v2', 3), dct],
      row('`ffc_resnet18 34 50 101 152`, `ffc_resnext50_32x4d`, `ffc_resnext101_32x8d`',
          'ffc_resnet50', 'Fast Fourier Convolution (ratio 0.25, local Fourier unit)'),
      row('`dct_ffc_resnet18 50` on 24 coefficients', 'dct_ffc_resnet50', 'both together'),
      ['`resnet20`, `resnet56`, `se_`, `eca_`, `fca_` of them, `ffc_resnet20`',
       f'{small["parameters"]:,} (`fca_resnet20`)', f'{giga(small["macs"])} at 32 x 32',
       'for small images']]
  return markdown(['models', 'parameters of the -50', 'G MACs', 'source'], rows)


def readme_attention():
  counts = results('model_counts')['attention_on_resnet50']
  return markdown(['attention on ResNet-50', 'parameters', 'G MACs at 224'], [
      [f"`'{name}'` {text}" if name != 'none' else name, f'{counts[name]["parameters"]:,}',
       with_transform(counts[name])] for name, text in ATTENTIONS.items()])


def attention_layers():
  counts = results('model_counts')['attention_on_resnet50']
  rows = [['(none)', '', '', f'{counts["none"]["parameters"]:,}', f'{counts["none"]["macs"]:,}']]
  for name, (layer, text) in LAYERS.items():
    row = counts[name]
    macs = f'{row["macs"]:,}' + (
        f' + {row["dct_macs"]:,} in the DCT' if row['dct_macs'] else '')
    rows.append([f'`{name}`', f'`{layer}`', text, f'{row["parameters"]:,}', macs])
  return markdown(['name', 'layer', 'what it does', 'ResNet-50 parameters',
                   'multiply-adds at 224'], rows)


def models_attention():
  counts = results('model_counts')['attention_on_resnet50']
  plain, rows = counts['none'], []
  for name, text in ATTENTIONS.items():
    row, paper = counts[name], ATTENTION_PAPER.get(name)
    rows.append([f"`'{name}'`, {text}", f'{row["parameters"]:,}',
                 f'{row["parameters"] - plain["parameters"]:,}', f'{paper:.2f} M' if paper else '',
                 giga(row['macs']), f'{(row["macs"] - plain["macs"]) / 1e6:.2f}',
                 mega(row['dct_macs'])])
  return markdown(['`attention=` on ResNet-50', 'parameters', 'added', "FcaNet's table 2", 'G MACs',
                   'added M', 'DCT M'], rows, 'lrrrrrr')


def models_fcanet():
  counts, rows = results('model_counts')['models'], []
  for name, (parameters, flops) in FCANET_PAPER.items():
    row = counts[name]
    rows.append([f'`{name}`', f'{row["parameters"]:,}', f'{parameters:.2f} M', f'{row["macs"]:,}',
                 f'{row["dct_macs"]:,}', f'{flops:.2f} G'])
  return markdown(['model', 'parameters', "paper's", 'MACs', 'of the DCT, apart',
                   "paper's FLOPs"], rows, 'lrrrrr')


def models_all():
  rows = [[f'`{name}`', str(row['image'][0]), ' x '.join(map(str, row['input'])),
           f'{row["parameters"]:,}', giga(row['macs']), mega(row['dct_macs']),
           mega(row['fourier_macs']), mega(row['activations'])]
          for name, row in results('model_counts')['models'].items()]
  return markdown(['model', 'image', 'input', 'parameters', 'G MACs', 'DCT M', 'Fourier M',
                   'activations M'], rows, 'lrrrrrrr')


def dct_networks():
  found = results('model_counts')
  counts = found['models'] | found['dct_input']
  return markdown(['`create_model(...)`', 'input', 'parameters', 'multiply-adds'], [
      [text, ' x '.join(map(str, counts[name]['input'])),
       f'{counts[name]["parameters"] / 1e6:.2f} M', f'{giga(counts[name]["macs"], digits)} G']
      for text, name, digits in (
           ("`'resnet50'`, RGB", 'resnet50', 2),
           ("`'dct_resnet50'`", 'dct_resnet50', 2),
           ("`'dct_resnet50_s1122'`, the published strides", 'dct_resnet50_s1122', 2),
           ("`'resnet50', stage_strides=(1, 1, 2, 2)`", 'resnet50_s1122', 2),
           ("`'dct_resnet50', coefficients='64S'`", 'dct_resnet50_64S', 2),
           ("`'dct_resnet50', coefficients='192'`", 'dct_resnet50_192', 2),
           ("`'dct_ffc_resnet50'`", 'dct_ffc_resnet50', 2),
           ("`'mobilenet_v2'`, RGB", 'mobilenet_v2', 3),
           ("`'dct_mobilenet_v2'`", 'dct_mobilenet_v2', 3))])


def ffc_variants():
  counts = results('model_counts')['imagenet_ffc']
  return markdown(['in the paper', 'network, ratio', 'local Fourier units', 'variant',
                   'parameters', 'GMACs', 'published'], [
      [where, network, units, f'`{variant}`', f'{counts[variant]["parameters"]:,}',
       giga(counts[variant]['macs']), f'{accuracy}']
      for variant, (where, network, units, accuracy) in FFC_PAPER.items()])


# Page -> name of the mark -> what makes the table.
TABLES = {
    'README.md': {'models': readme_models, 'attention': readme_attention,
                  'host-time': host_time, 'conv-step': conv_step},
    'docs/attention.md': {'layers': attention_layers},
    'docs/data.md': {'decoders': decoders},
    'docs/dct_input.md': {'networks': dct_networks, 'imagenette64': imagenette_dct},
    'docs/ffc.md': {'fourier-unit': fourier_unit, 'variants': ffc_variants},
    'docs/frequency_search.md': {'speed': search_speed, 'ranking': search_ranking,
                                 'top-k': search_top_k},
    'docs/models.md': {'fcanet': models_fcanet, 'attention': models_attention, 'all': models_all},
}


def fill(page, tables):
  """Returns the page with each table between its marks.

  Raises:
    ValueError: a mark is missing, stands twice, or names a table that nothing makes.
  """
  marks = re.findall(r'<!-- table ([\w-]+) -->', page)
  if sorted(marks) != sorted(tables):
    raise ValueError(f'the page marks the tables {sorted(marks)}, the tables made for it are '
                     f'{sorted(tables)}')
  for name, make in tables.items():
    before, start, rest = page.partition(f'<!-- table {name} -->\n')
    _, end, after = rest.partition('<!-- end -->')
    if not end:
      raise ValueError(f'table {name} has no <!-- end -->')
    page = f'{before}{start}{make()}\n{end}{after}'
  return page


def stale_pages(write=False):
  """Returns the pages whose tables differ from the result files; writes them if `write`."""
  stale = []
  for name, tables in TABLES.items():
    path = ROOT / name
    before = path.read_text()
    after = fill(before, tables)
    if after != before:
      stale.append(name)
      if write:
        path.write_text(after)
  return stale


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  action = parser.add_mutually_exclusive_group(required=True)
  action.add_argument('--write', action='store_true', help='put the tables into the pages')
  action.add_argument('--check', action='store_true', help='fail if a page says something else')
  args = parser.parse_args(argv)
  stale = stale_pages(write=args.write)
  for name in stale:
    print(f'{name}: {"written" if args.write else "run python -m benchmarks.tables --write"}')
  return 1 if stale and args.check else 0


if __name__ == '__main__':
  sys.exit(main())
