PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard pyproject.toml adapters/*/pyproject.toml)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --group dev --editable . $(foreach dir,$(wildcard adapters/*/pyproject.toml),--editable $(dir $(dir)))
	touch $@
