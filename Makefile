# Two commands: `make demo` shows the detector at work, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types tests docs clean

demo: $(READY)
	$(BIN)/python scripts/demo.py

test: lint types tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# A file's tests stay together: they share what was trained for them.
tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# The pages of docs/ as a site in site/. Installing Zensical takes a network, once; building does not.
docs: $(BIN)/zensical
	$(BIN)/zensical build

$(BIN)/zensical: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'zensical>=0.0.70'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs demo-output site
