"""Draws docs/images/architecture.png: the floors of setup.cfg, and who imports whom.

    python docs/draw_architecture.py

A row is a room with the first line of its docstring; a dot says that it imports the room of that
column. The floors are sorted, so a dot left of the diagonal would be an import that points up.
"""
import ast
import configparser
import pathlib
import textwrap

import grimp
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

ROOT = pathlib.Path(__file__).resolve().parents[1]


def floors():
  """Returns the layers of the contract, top to bottom: lists of module names."""
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  lines = config['importlinter:contract:floors']['layers'].split('\n')
  return [[name.strip() for name in line.split('|')] for line in lines if line.strip()]


def role(floor):
  """Returns what a floor is for: the first line of its package's docstring."""
  if len(floor) > 1:
    return 'Small modules without dependencies of their own.'
  text = (ROOT / floor[0].replace('.', '/') / '__init__.py').read_text()
  first = (ast.get_docstring(ast.parse(text)) or '').splitlines()[0]
  return textwrap.shorten(first, 80, placeholder=' ...')


def imports(rows):
  """Returns the pairs (i, j) of floors where a module of i imports one of j."""
  graph = grimp.build_graph('fcajax', cache_dir=None)
  floor_of = {name: i for i, row in enumerate(rows) for name in row}

  def floor(module):
    return floor_of.get('.'.join(module.split('.')[:2]))
  pairs = {(floor(module), floor(imported)) for module in graph.modules
           for imported in graph.find_modules_directly_imported_by(module)}
  return {(i, j) for i, j in pairs if None not in (i, j) and i != j}


def draw(rows, pairs, path):
  """Draws the floors from top to bottom, their roles, and the matrix of imports."""
  count = len(rows)
  figure = Figure(figsize=(13.4, 0.36 * count + 1.7))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(-24, count + 2), ylim=(count + 1.2, -4.2))
  axes.axis('off')
  names = [row[0].removeprefix('fcajax.') if len(row) == 1 else 'errors, ...'
           for row in rows]
  axes.text(-23.7, -3.4, 'The house: a room imports only rooms below it', fontsize=15,
            weight='bold')
  axes.text(-23.7, -2.5, 'A dot: the room of the row imports the room of the column.',
            fontsize=10.5, color='0.35')
  for i, row in enumerate(rows):
    shade = '#e8eef7' if i % 2 else '#f3f6fb'
    axes.add_patch(Rectangle((-23.8, i + 0.06), 23.5, 0.88, color=shade))
    axes.text(-23.5, i + 0.5, names[i], fontsize=10.5, weight='bold', va='center')
    axes.text(-19, i + 0.5, role(row), fontsize=10, va='center')
    axes.text(i + 0.3, -0.15, names[i], fontsize=10, rotation=50, va='bottom')
    axes.add_patch(Rectangle((0, i), i, 1, color='#f0f0f0', lw=0))
    axes.add_patch(Rectangle((i, i), 1, 1, color='#b8c7de', lw=0))
  for i, j in pairs:
    axes.add_patch(Circle((j + 0.5, i + 0.5), 0.24, color='#1f5fa8' if i < j else '#d1242f'))
  axes.text(0, count + 0.8, 'grey: imports that the contract forbids', fontsize=10, color='0.35')
  figure.savefig(path, dpi=100, facecolor='white')


def main():
  rows = floors()
  pairs = imports(rows)
  path = ROOT / 'docs' / 'images' / 'architecture.png'
  draw(rows, pairs, path)
  upward = [f'{rows[i][0]} -> {rows[j][0]}' for i, j in sorted(pairs) if i > j]
  print(f'wrote {path}: {len(pairs)} arrows, {len(upward)} of them up {upward or ""}')


if __name__ == '__main__':
  main()
