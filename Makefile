# The two commands for newcomers: `make demo` and `make test`. Everything is installed into .venv.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin

# The first Python >= 3.11 that can make virtual environments; override with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

DISTRIBUTIONS := $(wildcard ekairos_sandbox_*)
PYPROJECTS := pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml)

# Three for two cores, because most tests wait half of their time for processes of their own.
PARALLEL ?= -n 3 --dist loadgroup

.PHONY: help demo test check soak lint format types bench clean

help:
	@echo "make demo    run the main job with the local provider, no account needed; STORE=instantdb"
	@echo "             keeps its records in an InstantDB app on a server that runs here"
	@echo "make test    run the tests (loopback only)"
	@echo "make check   lint, types, all tests, official clients, packaging"
	@echo "make soak    thousands of faults, races, kills and load; up to ten minutes"
	@echo "make bench   measure; prints medians and ratios"
	@echo "make format  format and fix what can be fixed"

$(VENV)/.ready: $(PYPROJECTS)
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 with venv is needed (on Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --group dev -e ".[all,cli,testing]" $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

demo: $(VENV)/.ready
	@STORE='$(STORE)' $(BIN)/python docs/examples/demo.py

test: $(VENV)/.ready
	$(BIN)/pytest $(PARALLEL) -m "not live and not packaging and not docker and not oracle and not slow and not soak"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

check: lint types
	$(BIN)/pytest $(PARALLEL) -m "not live and not packaging and not oracle and not soak"
	$(BIN)/pytest -m "(packaging or oracle) and not live and not soak"

soak: $(VENV)/.ready
	$(BIN)/pytest -n 2 --dist loadgroup -m soak -rP

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	@$(BIN)/python tests/bench/run.py $(ONLY)

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
