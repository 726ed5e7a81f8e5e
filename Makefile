# `make demo`, `make demo-real`, `make test`, `make lint` and `make docs` build .venv themselves, from requirements.lock and pyproject.toml alone.
PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := .venv/bin

.PHONY: demo demo-real test smoke lint docs results clean

demo: .venv/installed
	$(BIN)/socratic demo $(DEMO_ARGS)

demo-real: .venv/installed
	$(BIN)/socratic demo --real $(DEMO_ARGS)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# Every recipe at its smallest size.
smoke: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m smoke tests/test_smoke.py $(PYTEST_ARGS)

lint: .venv/installed
	$(BIN)/ruff check socratic tests benchmarks data docs notebooks
	$(BIN)/ruff format --check socratic tests benchmarks data docs notebooks
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

# Makes the tables of results/ and docs/ again from the committed traces; needs the data sets as files in SOCRATIC_DATA.
results: .venv/installed
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/replication.py
	$(BIN)/python docs/plots.py

# --clear: what was installed by hand or has left the lock must not stay behind and hide a missing pin.
.venv/locked: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python >= 3.11, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d, but socratic needs Python >= 3.11: name one with PYTHON=..." % v[:2])'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -r requirements.lock
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
