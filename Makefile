# Everything a developer types. Nothing here touches the system's Python: all of it lives in $(VENV).
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
PG15 ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin /usr/pgsql-15/bin /opt/homebrew/opt/postgresql@15/bin))

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PYTHON_SOURCES := runledger tests docs

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
unexport PYTHONPATH
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help demo test test-pg15 check docs bench bench-check bench-churn bench-growth bench-long bench-peers chaos chaos-long chaos-smoke faults golden mutants coverage package clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(RUN_STAMP) ## Show it working: real jobs, a killed worker, a checked result (ARGS='--keep' to look around)
	@$(BIN)/runledger demo $(ARGS)

test: $(DEV_STAMP) ## Run every test on an embedded PostgreSQL (ARGS='tests/core -k gate' for some)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-pg15: $(DEV_STAMP) ## Run every test on PostgreSQL 15 of the system
	@test -n '$(PG15)' || { echo 'make test-pg15: no PostgreSQL 15 found; install it (apt-get install postgresql-15), or name its bin directory by PG15=' >&2; exit 1; }
	@RUNLEDGER_PG_BIN='$(PG15)' RUNLEDGER_TEST_DB=embedded $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(DEV_STAMP) ## Lint, format, types, and whether a generated page is stale
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet $(PYTHON_SOURCES) || { echo 'some files are not formatted: $(BIN)/ruff format $(PYTHON_SOURCES)' >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/architecture/test_generated.py

docs: $(DEV_STAMP) ## Write the generated pages of docs/reference anew, and build the site into build/site
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo 'build/site/index.html'

bench: $(DEV_STAMP) ## Measure throughput (see ARGS='--help')
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

bench-check: $(DEV_STAMP) ## Fail when the framework fell behind its floor (ARGS=--write stores the ratios)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.check $(ARGS)

bench-growth: $(DEV_STAMP) ## Measure what a job costs as queue, history, types, payloads and graphs grow, and draw it
	@.ci/install $(VENV) dev,plots
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.growth $(ARGS)

bench-churn: $(DEV_STAMP) ## Two minutes of work beside a transaction that stays open, ours and others
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.churn $(ARGS)

bench-long: $(DEV_STAMP) ## The same for an hour, ours alone
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.churn --only runledger --seconds 3600 $(ARGS)

bench-peers: $(DEV_STAMP) ## Measure other job systems beside ours; installs them below .venv-peers (ARGS='--only pgqueuer')
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.peers $(ARGS)

chaos: $(DEV_STAMP) ## Break everything under load for ten minutes, and check that nothing is lost (ARGS='--seed 1')
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak --kills 350 $(ARGS)

chaos-long: $(DEV_STAMP) ## The same for an hour: 2,000 kills, 60 crashes of the server, 60 failovers
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak --kills 2000 --hosts 3 --check-every-seconds 60 $(ARGS)

faults: $(DEV_STAMP) ## Cut every process at every point, break its server in every way, and run every pair of operations in every order
	@RUNLEDGER_EVERY_FAULT=1 $(BIN)/python -m pytest tests/runtime/test_crash_points.py tests/runtime/test_broken_servers.py tests/runtime/failover.py tests/interleavings $(ARGS)

mutants: $(DEV_STAMP) ## Take one rule after the other out of a copy of the source; the tests have to notice
	@PYTHONPATH=tests $(BIN)/python -m mutants $(ARGS)

golden: $(DEV_STAMP) ## Keep a dump of this release's schema with data in it, for all later releases to open; once, at its release
	@PYTHONPATH=tests $(BIN)/python -m upgrade.golden

chaos-smoke: $(DEV_STAMP) ## The same in half a minute, and the proof that the checker can fail; a part of make test
	@$(BIN)/python -m pytest tests/chaos $(ARGS)

coverage: $(DEV_STAMP) ## Run the tests and show which lines none of them reaches
	@$(BIN)/python -m pytest -n $(WORKERS) --cov=runledger --cov-report=term-missing:skip-covered $(ARGS)

package: $(DEV_STAMP) ## Build wheel and sdist, and try the wheel in a clean environment
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . > build.log 2>&1 || { cat build.log >&2; exit 1; }
	@rm -f build.log
	@$(BIN)/python -m twine check --strict dist/* > /dev/null || $(BIN)/python -m twine check --strict dist/*
	@$(BIN)/check-wheel-contents dist/*.whl
	@$(BIN)/python tests/packaging/smoke.py dist

clean: ## Remove the environment, caches and packages (databases in .runledger stay)
	@test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	@rm -rf build dist build.log .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find runledger tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The demonstration needs a quarter of what the tests need, so it does not wait for the rest.
$(RUN_STAMP): pyproject.toml
	@.ci/install $(VENV) embedded
	@touch $@

$(DEV_STAMP): pyproject.toml
	@.ci/install $(VENV) dev
	@touch $(RUN_STAMP) $@
