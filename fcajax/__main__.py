"""`python -m fcajax` is the `fcajax` command."""
import sys

from fcajax.cli.main import main

if __name__ == '__main__':
  sys.exit(main())
