"""`fcajax statistics`: mean and standard deviation of the inputs over a config's training set.

    fcajax statistics --config imagenet_dct:24S
    fcajax statistics --config configs/imagenet_dct.py --output statistics.json

Without --output the result goes to the file that the config names as data.statistics. Every key of
a config can be set as --config.KEY=VALUE. Interrupted, the command goes on where it stopped. Over
several hosts, give each the same command with its --process_index and the --process_count, and an
output on a shared disk.
"""
from collections.abc import Sequence

from absl import flags

from fcajax.cli import config_flags
from fcajax.configs.base import checks
from fcajax.errors import UserError
from fcajax.input_pipeline.tools import statistics


def main(argv: Sequence[str], program: str) -> int:
  """Runs the command with the words `argv`; returns its exit status."""
  values = flags.FlagValues()
  config_flags.define(values, [program, *argv])
  flags.DEFINE_string(
      'output', '', "The JSON file to write; the config's data.statistics by default.",
      flag_values=values)
  flags.DEFINE_integer('process_index', 0, 'The share of the images that this process takes.',
                       flag_values=values)
  flags.DEFINE_integer('process_count', 1, 'Number of processes.', flag_values=values)
  if not argv or {'-h', '--help', '-help', '--helpfull'}.intersection(argv):
    print('\n'.join([__doc__, f'configs: {", ".join(config_flags.NAMES)}', str(values)]))
    return 0 if argv else 2
  config_flags.parse(argv, program, values)
  config = values.config
  checks.check_config(config)
  output = values.output or config.data.get('statistics')
  if not output:
    raise UserError('give --output FILE, or a config that names data.statistics')
  result = statistics.compute(config.data, output, seed=config.get('seed', 0),
                              process=(values.process_index, values.process_count))
  if result is None:
    print(f'this part is done; {output} is written once the other processes have finished')
  else:
    print(f'{output}: {len(result["mean"])} means and standard deviations over '
          f'{result["images"]} images; use it with --config.data.statistics={output}')
  return 0
