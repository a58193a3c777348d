# Needs Python 3.11 or newer, make and a package index; everything else is installed under this folder.
# Another interpreter: `make test PYTHON=python3.13`.  Another uv: `make test UV=uv`.  One process: `make test JOBS=0`.

PYTHON ?= python3
UV ?= .uv/bin/uv
VENV := .venv
# Tests run in as many processes as there are cores; each takes the next test when it has ended one.
JOBS ?= auto
PARALLEL = -n $(JOBS) --dist worksteal
# What a change of Python breaks first: the hook, the readers, budgets, the ledger, spans and forks.
SHORT := tests/capture tests/budget tests/ledger tests/telemetry tests/dialects tests/wire tests/test_*.py
BIN := $(VENV)/bin
RUN := $(BIN)/python

# The interpreter itself, for uv takes a bare name such as python3 as any Python 3 that it finds.
INTERPRETER := $(shell $(PYTHON) -c 'import sys; print(sys.executable)' 2>/dev/null)

# Strict: a warning, a link or a reference that leads nowhere fails the build.
SPHINX := $(RUN) -m sphinx -q -W -n --keep-going -d build/doctrees

# One stamp per dependency group and Python version: set-up runs again only when what it depends on has changed.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SYNCED = $(VENV)/.synced-$(1)-$(VERSION)

# The checkers of the page's JavaScript, with their configuration; all JavaScript in the package is theirs to check.
JAVASCRIPT := tests/javascript
CHECKERS := $(JAVASCRIPT)/node_modules/.package-lock.json
BIOME = $(BIN)/node $(JAVASCRIPT)/node_modules/.bin/biome check --error-on-warnings --config-path $(JAVASCRIPT) src/tollspan

WORKFLOWS := $(wildcard .github/workflows/*.yml)
FORMS_CONFIG := .github/ISSUE_TEMPLATE/config.yml
FORMS := $(filter-out $(FORMS_CONFIG),$(wildcard .github/ISSUE_TEMPLATE/*.yml))
SCHEMA = $(BIN)/check-jsonschema --quiet --builtin-schema vendor.$(1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs test test-docs test-stack test-emitters test-oldest test-pythons test-pythons-short soak coverage \
	lint lint-page lint-github audit format bench build clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(call SYNCED,demo) ## meter a small app against a fake provider on this machine, and print what it spent
	$(RUN) examples/demo/run.py

docs: $(call SYNCED,docs) ## build the documentation into build/docs; any warning fails
	rm -rf build/docs build/doctrees
	$(SPHINX) -b html docs build/docs
	$(SPHINX) -b markdown docs build/docs

test: $(call SYNCED,test) ## run the tests
	$(RUN) -m pytest $(PARALLEL) $(PYTEST)

test-stack: $(call SYNCED,stack) ## run the tests against a real collector and real servers (needs Go)
	$(RUN) -m pytest tests/stack $(PYTEST)

test-emitters: $(call SYNCED,test) .uv/bin/uv ## run the tests beside other instrumentations, each in its own environment
	$(RUN) -m pytest tests/emitters $(PYTEST)

test-docs: $(call SYNCED,test) $(call SYNCED,docs) .uv/bin/uv ## build and check the documentation, run its blocks that need other packages
	$(RUN) -m pytest tests/docs/environments $(PYTEST)

test-oldest: .venv-oldest/.synced-$(VERSION) ## run the tests with the oldest versions of everything that tollspan supports
	.venv-oldest/bin/python -m pytest $(PARALLEL) $(PYTEST)

test-pythons: .uv/bin/uv | python ## run the tests on every Python of 3.11 to 3.14 that is installed (PYTHONS="--only 3.12", PYTEST="...")
	$(PYTHON) .ci/pythons.py $(UV) $(PYTHONS) -- $(PARALLEL) $(PYTEST)

test-pythons-short: .uv/bin/uv | python
	$(PYTHON) .ci/pythons.py $(UV) --only 3.12 3.13 3.14 --require 3.12 3.13 -- $(PARALLEL) -q $(SHORT)

soak: $(call SYNCED,soak) ## run what takes long: fuzzing, a soak, a million calls, other majors, gevent, Celery, Jupyter
	SOAK=1 $(RUN) -m pytest tests/soak tests/concurrency tests/environments tests/fuzz $(PYTEST)

coverage: $(call SYNCED,test) ## run the tests and report the lines and branches that none of them reaches
	$(RUN) -m pytest --cov --cov-report=term $(PYTEST)

lint: lint-page lint-github $(call SYNCED,dev) .uv/bin/uv ## check style, format, types, who imports whom, and that the lock file is current
	$(UV) lock --check --quiet
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lint-page: $(CHECKERS) ## check the style, format and types of the page's JavaScript
	$(BIOME)
	$(BIN)/node $(JAVASCRIPT)/node_modules/.bin/tsc --project $(JAVASCRIPT)

lint-github: $(VENV)/.checked-github ## check .github/ against GitHub's schemas, if it has changed

audit: $(call SYNCED,test) .uv/bin/uv ## look up every locked dependency in PyPI's advisories
	$(RUN) .ci/audit.py --required $(UV)

format: $(call SYNCED,dev) $(CHECKERS) ## format the code, and mend what can be mended without thinking
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIOME) --write

bench: $(call SYNCED,test) .uv/bin/uv ## measure what tollspan and its peers cost (BENCH='--only NAME --quick' for less)
	$(RUN) -m benchmarks.run $(BENCH)

build: .uv/bin/uv ## build the wheel and the source archive into dist/
	$(UV) build --python $(INTERPRETER)

clean: ## remove everything that make has made here
	rm -rf .uv .venv .venv-* build dist htmlcov .coverage .coverage.* .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(JAVASCRIPT)/node_modules

# --inexact: `make test` after `make lint` leaves the linters where they are.
$(VENV)/.synced-%-$(VERSION): pyproject.toml uv.lock | python .uv/bin/uv
	UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --inexact --no-default-groups --group $* --python $(INTERPRETER)
	@touch $@

$(VENV)/.checked-github: $(WORKFLOWS) $(FORMS) $(FORMS_CONFIG) .github/dependabot.yml uv.lock | $(call SYNCED,dev)
	$(call SCHEMA,github-workflows) $(WORKFLOWS)
	$(call SCHEMA,github-issue-forms) $(FORMS)
	$(call SCHEMA,github-issue-config) $(FORMS_CONFIG)
	$(call SCHEMA,dependabot) .github/dependabot.yml
	@touch $@

$(CHECKERS): $(JAVASCRIPT)/package.json $(JAVASCRIPT)/package-lock.json | $(call SYNCED,page)
	$(BIN)/npm ci --prefix $(JAVASCRIPT) --loglevel error
	@touch $@

.venv-oldest/.synced-$(VERSION): pyproject.toml | python .uv/bin/uv
	$(UV) venv --quiet --clear --python $(INTERPRETER) .venv-oldest
	$(UV) pip install --quiet --python .venv-oldest --resolution lowest-direct --group test --editable .
	@touch $@

.uv/bin/uv: | python
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tollspan needs Python 3.11 or newer, and '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
