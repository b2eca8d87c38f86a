# Every target does its own set-up. PYTHON=python3.13 picks another interpreter; ARGS goes to pytest, to the demo, to
# the benchmarks or to the soak (make bench ARGS="kernel --quick", make soak ARGS="--seconds 600"; --help lists more).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
OLDEST := .venv-oldest
DISTRIBUTIONS := . $(patsubst %/pyproject.toml,%,$(wildcard adapters/*/pyproject.toml))
INPUTS := Makefile $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))

.PHONY: test oldest check audit demo bench soak mutants docs build servers clean

# The same commit gives the same bytes. Without git, or outside a clone: the build backend's own default.
export SOURCE_DATE_EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),1580601600)

test: $(VENV)/installed servers
	$(BIN)/pytest $(ARGS)

oldest: $(OLDEST)/installed servers
	$(OLDEST)/bin/pytest $(ARGS)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/pytest --quiet tests/house/test_imports.py tests/house/test_dependencies.py
	@$(BIN)/python -m tests.audit
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html

audit: $(VENV)/installed
	@$(BIN)/python -m tests.audit $(ARGS)

demo: $(VENV)/installed
	@tests/servers/install || true # the demo also has something to show without
	@$(BIN)/python -m examples.demo $(ARGS)

soak: $(VENV)/installed servers
	@$(BIN)/python -m tests.soak $(ARGS)

bench: $(BENCH)/installed
	@tests/servers/install wrk
	@$(BENCH)/bin/python -m tests.benchmarks $(ARGS)

mutants: $(VENV)/installed
	@$(BIN)/python -m tests.mutants $(ARGS)

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

build: $(VENV)/installed
	rm -rf dist
	for distribution in $(DISTRIBUTIONS); do $(BIN)/python -m build --outdir dist $$distribution || exit; done

servers:
	@tests/servers/install

clean:
	rm -rf $(VENV) $(BENCH) $(OLDEST) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# $(1): a virtual environment, $(2): what goes into it. One call at a time; pip before 25.1 does not know --group.
define install
	@$(PYTHON) -c 'import sys; sys.exit("respool needs Python 3.11 or later: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@echo "Installing what this needs into $(1), for a minute or so"
	@flock .install.lock sh -ec '\
		$(PYTHON) -m venv $(1); \
		$(1)/bin/pip install -qq --upgrade "pip>=25.1"; \
		$(1)/bin/pip install -qq $(2) $(addprefix --editable ,$(DISTRIBUTIONS)); \
		touch $(1)/installed'
endef

$(VENV)/installed: $(INPUTS)
	$(call install,$(VENV),--group dev)

$(OLDEST)/installed: $(INPUTS)
	@mkdir -p build && $(PYTHON) -m tests.oldest > build/oldest.txt
	$(call install,$(OLDEST),--group test --constraint build/oldest.txt)

$(BENCH)/installed: $(INPUTS)
	$(call install,$(BENCH),--group bench)
