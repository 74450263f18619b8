# The commands of this project. Everything runs in .venv, which `make install` creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLE := .venv-mergekit
EXTRAS ?= quickstart
# how many processes test side by side
JOBS ?= 2

.PHONY: install test check parity quickstart clean

install: $(VENV)/.installed-$(EXTRAS)

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and pinned: later requirements then keep this build instead of a larger one
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

check:
	$(MAKE) install EXTRAS=dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	# each folder by itself: its scripts import one another by name
	set -e; for folder in experiments/*/; do \
	  ! ls $$folder*.py >/dev/null 2>&1 || MYPYPATH=experiments/quickstart:evals/read_write \
	  $(BIN)/mypy $$folder*.py; \
	done
	$(BIN)/mypy --explicit-package-bases -p experiments.faults.malformed
	$(BIN)/lint-imports --no-cache

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# The same merges with mergekit, which lives in an environment of its own; about half an hour.
parity: $(ORACLE)/.installed
	$(MAKE) install EXTRAS=dev
	OMP_NUM_THREADS=1 MERGEKIT=$(CURDIR)/$(ORACLE)/bin/mergekit-yaml \
	  PARITY_RESULTS=experiments/parity/results.json $(BIN)/python -m pytest tests/parity
	$(BIN)/python experiments/parity/tables.py

$(ORACLE)/.installed:
	test -x $(ORACLE)/bin/python || $(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(ORACLE)/bin/python -m pip install --quiet --disable-pip-version-check mergekit==0.1.5
	touch $@

quickstart: install
	$(BIN)/python experiments/quickstart/make_parents.py
	$(BIN)/evomerge search --space search_spaces/quickstart.yaml

clean:
	rm -rf $(VENV) $(ORACLE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
