# make demo: stain and measure phantom and real H&E; prints the path of one HTML page, pictures first.
# make test: all tests; make test-quick: those that are neither slow nor need a browser. All make .venv where needed.
# make docs: the documentation site in build/site, without PyTorch.

PYTHON ?= python3
REAL ?= ../shared/data
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test test-quick lint docs bench clean

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
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/hadolint docker/Dockerfile integrations/grand-challenge/Dockerfile

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: .venv/.dev
	$(BIN)/python benchmarks/attention.py --quick
	$(BIN)/python benchmarks/seams.py --quick
	$(BIN)/python benchmarks/generator.py --quick
	$(BIN)/python benchmarks/memory.py --quick

clean:
	rm -rf .venv demo build

.venv/.venv:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.demo: .venv/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[backbone,explain,train,web,zarr]'
	touch $@

.venv/.dev: .venv/.venv pyproject.toml constraints.txt
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --editable '.[all]' --group dev
	touch $@ .venv/.demo .venv/.docs

.venv/.docs: .venv/.venv pyproject.toml constraints.txt
	$(INSTALL) --upgrade 'pip>=25.1'
	$(INSTALL) --group docs
	touch $@
