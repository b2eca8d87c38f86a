PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard pyproject.toml adapters/*/pyproject.toml)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group dev --editable . $(foreach dir,$(wildcard adapters/*/pyproject.toml),--editable $(dir $(dir)))
	touch $@

# The benchmarks: all of them, or what ARGS says (make bench ARGS="kernel --quick"; --help lists more).
bench: .venv-bench/installed
	.venv-bench/bin/python -m tests.benchmarks $(ARGS)

.venv-bench/installed: $(SOURCES)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --upgrade pip
	.venv-bench/bin/pip install --quiet --group bench --editable . $(foreach dir,$(wildcard adapters/*/pyproject.toml),--editable $(dir $(dir)))
	touch $@

.PHONY: bench
