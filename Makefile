# The commands of this project. Everything runs in .venv, which `make install` creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= quickstart

.PHONY: install test check quickstart clean

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
	$(BIN)/lint-imports --no-cache

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

quickstart: install
	$(BIN)/python experiments/quickstart/make_parents.py
	$(BIN)/evomerge search --space search_spaces/quickstart.yaml

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
