# All set-up is here: `make demo` and `make test` install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install test coverage demo bench docs audit

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,parquet,sweep,desk,serve,ray,docs]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/letheon demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The same suite with the lines that no test reached; tracing them costs a third more time.
coverage: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

docs: install
	$(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python benchmarks/run.py --out runs/benchmarks.json

# Known faults of the pinned packages, in an environment of its own. Where no database can be reached it says so and does not fail.
AUDIT := $(VENV)/audit
audit:
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet pip-audit; }
	@$(AUDIT)/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off > $(AUDIT)/said 2>&1; code=$$?; \
		if grep -q "ConnectionError\|ServiceError\|Max retries" $(AUDIT)/said; then \
			echo "audit: the database of known faults cannot be reached; nothing was checked"; exit 0; \
		fi; cat $(AUDIT)/said; exit $$code
