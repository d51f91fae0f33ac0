# make demo: restain phantom and real H&E with the shipped model; prints the path of one HTML page.
# make test: all tests; make test-quick: those that are neither slow nor need a browser. All make the virtual environment .venv where needed.

PYTHON ?= python3
REAL ?= ../shared/data
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-quick lint bench clean

demo: .venv/.demo
	$(BIN)/restain demo --out demo --real $(REAL)

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-quick: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser"

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python benchmarks/attention.py --quick
	$(BIN)/python benchmarks/seams.py --quick
	$(BIN)/python benchmarks/generator.py --quick
	$(BIN)/python benchmarks/memory.py --quick

clean:
	rm -rf .venv demo

.venv/.venv:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.demo: .venv/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[backbone,explain,train,web,zarr]'
	touch $@

.venv/.dev: .venv/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test,dev]'
	touch $@ .venv/.demo
