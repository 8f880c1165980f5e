"""The code in docs/attention.md runs as printed."""
import pathlib
import re

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'


def test_examples_run():
  blocks = re.findall(r'```python\n(.*?)```', (DOCS / 'attention.md').read_text(), re.S)
  assert len(blocks) == 3
  namespace = {}
  for block in blocks:
    exec(compile(block, 'attention.md', 'exec'), namespace)
  assert namespace['features'].shape == (2, 14, 14, 32)
