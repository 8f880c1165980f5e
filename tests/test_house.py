"""The plan of the house: imports point down, stand at the top of files, and nothing is idle.

    python -m tests.test_house        # prints what is wrong, without pytest
"""
import ast
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = ROOT / 'fcajax'
# fcajax/configs and fcajax/input_pipeline are links to these.
PACKAGES = (LIBRARY, ROOT / 'configs', ROOT / 'input_pipeline')
FIRST_PARTY = ('fcajax', 'configs', 'input_pipeline', 'train')
# Only the dispatch of the command line imports first-party modules inside functions: mistakes in
# its words need not wait for JAX.
DISPATCH = {'fcajax/cli/main.py', 'fcajax/cli/train.py', 'fcajax/cli/config_flags.py'}


def python_files(*roots):
  """Returns the Python files that are, or lie below, `roots`, without what is linked."""
  found = {path for root in roots for path in (root, *root.rglob('*.py'))
           if path.suffix == '.py' and path.is_file()}
  return sorted(path for path in found
                if not any(part.is_symlink() for part in (path, *path.parents)))


def name(path):
  return str(path.relative_to(ROOT))


def broken_contract():
  """Returns the report of import-linter, or '' if the contract of setup.cfg is kept."""
  code = 'from importlinter.cli import lint_imports_command as run; run()'
  command = [sys.executable, '-c', code, '--no-cache']
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  report = result.stdout + result.stderr
  return '' if result.returncode == 0 else report[report.find('Contracts'):]


def local_imports():
  """Returns 'file:line module' of every first-party import inside a function or class."""
  found = []
  for path in python_files(*PACKAGES):
    if name(path) in DISPATCH:
      continue
    tree = ast.parse(path.read_text())
    scopes = [node for node in ast.walk(tree)
              if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    lines = {}
    for scope in scopes:
      for node in ast.walk(scope):
        if isinstance(node, ast.ImportFrom):
          lines[node.lineno] = '.' * node.level + (node.module or '')
        elif isinstance(node, ast.Import):
          lines[node.lineno] = node.names[0].name
    found += [f'{name(path)}:{line} {module}' for line, module in sorted(lines.items())
              if module.startswith('.') or module.split('.')[0] in FIRST_PARTY]
  return found


def public_definitions():
  """Yields (file, node) of the public functions, classes and methods of the library.

  Methods of a class that inherits are left out: the base class may call them.
  """
  for path in python_files(*PACKAGES):
    for node in ast.parse(path.read_text()).body:
      members = [node]
      if isinstance(node, ast.ClassDef) and not node.name.startswith('_') and not node.bases:
        members += node.body
      for member in members:
        if isinstance(member, ast.FunctionDef | ast.ClassDef) and not member.name.startswith('_'):
          yield name(path), member


def references(tree):
  """Counts the names that Python code refers to, also in texts, but not in docstrings."""
  docstrings = {id(node.body[0].value) for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
                and isinstance(node.body[0], ast.Expr)}
  found = collections.Counter()
  for node in ast.walk(tree):
    if isinstance(node, ast.Name):
      found[node.id] += 1
    elif isinstance(node, ast.Attribute):
      found[node.attr] += 1
    elif isinstance(node, ast.alias) and node.asname:
      found[node.name] += 1
    elif (isinstance(node, ast.Constant) and isinstance(node.value, str)
          and id(node) not in docstrings):
      # Dispatch by name: 'fcajax.cli.main:main', a method of a Flax module.
      found.update(re.findall(r'\w+', node.value))
  return found


def page_references(text):
  """Counts the words of a page that stand in code: a block, or between backticks."""
  blocks = re.findall(r'```.*?```', text, re.DOTALL)
  spans = re.findall(r'`[^`\n]+`', re.sub(r'```.*?```', '', text, flags=re.DOTALL))
  return collections.Counter(re.findall(r'\w+', ' '.join(blocks + spans)))


def idle_functions():
  """Returns 'file:line name' of public functions, classes and methods that nothing refers to."""
  found = collections.Counter(re.findall(r'\w+', (ROOT / 'setup.cfg').read_text()))
  for path in python_files(*PACKAGES, ROOT / 'benchmarks', ROOT / 'examples', ROOT / 'train.py'):
    found += references(ast.parse(path.read_text()))
  for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
    found += page_references(path.read_text())
  for path in (ROOT / 'colab').glob('*.ipynb'):
    found.update(re.findall(r'\w+', path.read_text()))
  # A reference inside the definition itself, as in a recursion, is no use of it.
  return [f'{file}:{node.lineno} {node.name}' for file, node in public_definitions()
          if found[node.name] <= references(node)[node.name]]


def test_imports_point_down():
  report = broken_contract()
  assert not report, report


def test_first_party_imports_stand_at_the_top():
  found = local_imports()
  assert not found, '\n'.join([f'{len(found)} first-party imports inside functions:', *found])


def test_every_public_function_has_a_caller():
  found = idle_functions()
  assert not found, '\n'.join([
      f'{len(found)} public names that neither code nor docs refer to; remove them or use them:',
      *found])


def test_the_page_of_the_architecture_names_files_that_exist():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  files = re.findall(r'`([\w/]+(?:\.\w+|/))`', text)
  missing = sorted({file for file in files if not (ROOT / file).exists()
                    and not file.startswith('config.') and file != 'metadata.json'})
  assert files and not missing, f'docs/architecture.md names {missing}'


def main():
  faults = [broken_contract(), *local_imports(), *idle_functions()]
  print('\n'.join(filter(None, faults)) or 'the house is in order')
  return 1 if any(faults) else 0


if __name__ == '__main__':
  sys.exit(main())
