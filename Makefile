# Everything a person does with a clone. `make` alone lists the targets.
# PYTHON chooses the interpreter (>= 3.11), VENV the private environment.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# UV=PATH installs what the tests need with uv instead of pip: the same versions, in a tenth of the time.
UV     ?=
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(PIP) --no-compile)
# Workers of the test run: one more than there are cores, as most tests wait for something; at most 4.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -gt 3 ] && n=3; echo $$((n + 1)))
# Put options of pytest here: make test ARGS="tests/model -x"
ARGS   ?=

# Every module is compiled once, when it is first imported, and not again by each process of the tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check nightly goldens lint style types contracts format docs docs-serve generate bench torch wheel vsix lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------------------------------------------

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "error: $(PYTHON) is not installed"; \
	  echo "hint: apt-get install python3 python3-venv, or name another: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Argosy needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)"; \
	  echo "hint: name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make private environments (no ensurepip)"; \
	  echo "hint: apt-get install python3-venv"; exit 1; }
	@echo "making a private environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# What `make demo` needs: Argosy and the data set of the example (it comes inside scikit-learn).
$(VENV)/.demo: $(BIN)/python pyproject.toml examples/digits/requirements.txt
	@if [ ! -e $(VENV)/.dev ]; then echo "installing Argosy"; $(PIP) . -c requirements-dev.lock; fi
	@echo "installing what the example trains with"
	@$(PIP) -r examples/digits/requirements.txt -c requirements-dev.lock
	@touch $@

# What tests, checks and documentation need; Argosy itself editable. Modules are compiled when they are first
# imported: most of them never are.
$(VENV)/.dev: $(BIN)/python pyproject.toml requirements-dev.lock
	@echo "installing Argosy with what its tests need"
	@$(INSTALL) -e '.[dev,docs]' -c requirements-dev.lock
	@touch $@

# Modules of tests are compiled when they are found: once here, not by each process of the first run. What is
# wrong with them, that run says.
$(VENV)/.compiled: $(VENV)/.dev
	@$(BIN)/python -m pytest -q --collect-only >/dev/null 2>&1 || true
	@touch $@

# --- what people run ----------------------------------------------------------------------------------------------

demo: $(VENV)/.demo  ## Train a real classifier on this machine, from nothing
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/argosy launch --yes --cluster demo examples/digits/train.yaml
	@echo
	@echo "The cluster \`demo\` is still there. Next:"
	@echo "  $(BIN)/argosy status"
	@echo "  $(BIN)/argosy exec demo examples/hello/hello.yaml"
	@echo "  $(BIN)/argosy down demo"

test: $(VENV)/.compiled  ## Set up what the tests need and run them all
	@$(BIN)/python -m pytest -rfEs -n $(JOBS) $(ARGS)

check: $(VENV)/.dev  ## What a change needs, in under a minute: lint, types, and the unit tests of what changed
	@$(BIN)/python tools/check_changed.py $(ARGS)

nightly: $(VENV)/.dev  ## Many seeds and examples: an hour or more
	@ARGOSY_NIGHTLY=1 ARGOSY_HYPOTHESIS=nightly $(BIN)/python -m pytest -rfEs -n $(JOBS) \
	  -m 'nightly or (unit and not process)' $(ARGS)

goldens: $(VENV)/.dev  ## Write the answers of golden tests again (read the difference)
	@ARGOSY_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q -n0 tests/plans tests/spec

lint: style types contracts  ## Static checks: format, lint, types, import contracts

style: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(VENV)/.dev  ## Write the generated pages of docs/ again
	$(BIN)/python docs/generate.py

docs: $(VENV)/.dev  ## Build the documentation into site/ (offline, strict)
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

docs-serve: $(VENV)/.dev  ## Documentation with live reload on this machine
	$(BIN)/mkdocs serve

bench: $(VENV)/.dev  ## Measure the table "speed and size"; keeps the results as JSON
	$(BIN)/python benchmarks/run.py $(ARGS)

torch: $(VENV)/.dev  ## Install PyTorch, for examples/ddp and its test (large where only CUDA builds exist)
	$(PIP) --no-compile torch==2.13.0

wheel: $(VENV)/.dev  ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

vsix:  ## Build the VS Code extension into dist/
	@$(PYTHON) web/vscode/pack.py

lock: $(VENV)/.dev  ## Pin what is installed now in requirements-dev.lock
	$(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(argosy|torch|uv)\b|@' > requirements-dev.lock.new
	mv requirements-dev.lock.new requirements-dev.lock

clean:  ## Remove environments and build results
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
