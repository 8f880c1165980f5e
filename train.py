"""Trains a model as a config says: `fcajax train`, for a checkout that is not installed.

    python train.py --config configs/quickstart.py --workdir runs/digits
    python train.py --config configs/folder.py --config.data.root=DIR
"""
import sys

from fcajax.cli.main import main

if __name__ == '__main__':
  sys.exit(main(['train', *sys.argv[1:]], program='train.py'))
