"""The loop on a tiny network: exact resume, bad losses, signals, what it leaves."""
import io
import json

import tiny

from configs import common
from fcajax.train import loop


def make_config(**changes):
  config = common.get_config()
  config.num_steps = 6
  config.batch_size, config.eval_batch_size = 24, 16
  config.optimizer.learning_rate, config.optimizer.learning_rate_batch = 0.05, 0
  config.log_every_steps = 2
  config.model.name = 'resnet18'
  config.update_from_flattened_dict(changes)
  return config.lock()


def run(config, workdir, *, data=None, **options):
  out = io.StringIO()
  summary = loop.train(
      config, workdir, data or tiny.TinyPipeline(), model=tiny.TinyNet(), stream=out, **options)
  return summary, out.getvalue()


def test_leaves(tmp_path):
  summary, out = run(make_config(), tmp_path / 'run')
  print(out)
  print(json.dumps(summary, indent=1))
  print(sorted(p.name for p in (tmp_path / 'run').iterdir()))
  print((tmp_path / 'run/metrics.jsonl').read_text())
  print(run(make_config(), tmp_path / 'run')[1])
