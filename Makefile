# All set-up is here: `make demo` and `make test` install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install test demo bench check-clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,parquet,sweep]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/letheon demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

bench: install
	$(BIN)/python benchmarks/run.py
