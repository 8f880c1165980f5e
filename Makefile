# make quickstart   set up .venv, train fca_resnet20 on real handwritten digits, show what to do next
# make test         set up .venv, lint, run the whole suite
# make venv         set up .venv alone
# make bench        the benchmarks of benchmarks/cpu; python -m benchmarks.tables makes the tables
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKDIR ?= runs/quickstart
# Processes of the test suite.
WORKERS ?= 2
comma := ,
# PyTorch is only needed to compare imported weights; where it is missing those tests say so and skip.
TEST_EXTRAS ?= test$(if $(CI),$(comma)torch)
BIN := $(VENV)/bin

.PHONY: quickstart test lint venv bench clean

quickstart: $(VENV)/.installed
	$(BIN)/python train.py --config configs/quickstart.py --workdir $(WORKDIR)

venv: $(VENV)/.installed

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports

bench: $(VENV)/.installed-test
	for file in benchmarks/cpu/[!_]*.py; do \
	  echo "== $$file"; $(BIN)/python -m benchmarks.cpu.$$(basename $$file .py) || exit 1; done

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no python3 found; install Python 3.11 or newer, or: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11; choose another: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.cfg constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(TEST_EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
