# Two commands for a newcomer: `make demo` and `make test`. Each does all of its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint coverage clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PYTHONDONTWRITEBYTECODE ?= 1

help:
	@echo "make demo   train, build, verify and measure the digits model; ends with a report"
	@echo "make test   every check and test"
	@echo "make clean  remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	$(BIN)/tiedexport demo -o out/demo

test: $(VENV)/test.stamp lint coverage

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(VENV)/test.stamp
	$(BIN)/python -m pytest --cov --cov-report=term

# pip on a machine with the CPU build of torch at hand takes it; elsewhere see the README.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[cpu,rtx,train]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) -e '.[cpu,rtx,train,dev]'
	$(PIP) --no-deps --target $(VENV)/tensorrt-10.12 --upgrade tensorrt-cu12-bindings || \
	  echo "no bindings of TensorRT 10.12 for this Python: their test will be skipped"
	@touch $@

$(BIN)/python:
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print(f"python3.{sys.version_info.minor}-venv")'); \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y $$package; \
	  else echo "Python's venv module is missing. Type: sudo apt-get install $$package" >&2; exit 1; fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) out build dist .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
