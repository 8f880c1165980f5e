"""`fcajax plot KIND ...`: one kind of picture a module, loaded when it is asked for."""
import importlib
import importlib.util

KINDS = {
    'filters': ('plot_filters', 'the DCT filters of a grid, the chosen ones framed'),
    'spectrum': ('plot_spectrum', "the cosine spectrum of a network's feature maps"),
    'attention': ('plot_attention', "the attention layers' gate values, by class and stage"),
    'search': ('plot_search', 'the heat map of a frequency search'),
    'receptive-field': ('plot_receptive_field', 'what part of the image an output depends on'),
    'coefficients': ('plot_coefficients', 'the block-DCT coefficients of an image'),
    'curves': ('plot_curves', 'the learning curves of several runs'),
    'gate': ('plot_gate', 'how often a trained gate opens each DCT coefficient'),
}


def _module(kind):
  return f'{__package__}.{KINDS[kind][0]}'


def add_arguments(parser):
  kinds = parser.add_subparsers(dest='kind', metavar='KIND', required=True)
  for kind, (_, text) in KINDS.items():
    if importlib.util.find_spec(_module(kind)):
      importlib.import_module(_module(kind)).add_arguments(
          kinds.add_parser(kind, help=text, description=text))


def run(args):
  return importlib.import_module(_module(args.kind)).run(args)
